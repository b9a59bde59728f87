"""TensorRT in a process of its own: kept warm, killed when it must be, replaced when it is not fit."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import NamedTuple

from pydantic import ValidationError

from trtfarm.contract.jobs import Outcome
from trtfarm.contract.v1 import ErrorView, Progress
from trtfarm.errors import ConfigurationError
from trtfarm_worker.child.orphans import mark
from trtfarm_worker.child.protocol import (
    ChildMessage,
    ChildRequest,
    Done,
    Failed,
    Progressed,
    Ready,
    child_message,
)
from trtfarm_worker.child.stall import cpu_seconds
from trtfarm_worker.settings import WorkerSettings

_POLL_SECONDS = 0.1
_MESSAGE_LIMIT_BYTES = 4 << 20


class Interrupted(NamedTuple):
    """The attempt was stopped from outside: timed out, cancelled, fenced, or the worker stops."""

    outcome: Outcome


class Crashed(NamedTuple):
    """The child ended by itself, or had to be ended: it sent what is no message (``status`` None).

    ``status``: as subprocess gives it, negative for a signal.
    """

    status: int | None

    @property
    def error(self) -> ErrorView:
        return ErrorView(
            code="BUILD_CRASHED",
            message=f"The process that ran TensorRT {self._what}.",
            hint="The job's log has its last words; the kernel's log tells of a lack of memory (SIGKILL).",
        )

    @property
    def _what(self) -> str:
        if self.status is None:
            return "sent its worker what is no message, and was killed"
        if self.status >= 0:
            return f"ended with exit status {self.status}"
        try:
            return f"was killed by {signal.Signals(-self.status).name}"
        except ValueError:  # a real-time signal
            return f"was killed by signal {-self.status}"


class _StoppedError(Exception):
    """Unwinds to ``build`` when the attempt must stop, wherever the child stands."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome)
        self.outcome = outcome


class GpuHold(NamedTuple):
    """The GPU a child may see, and the descriptor of its lock, which the child inherits."""

    uuid: str
    lock: int


class TensorRTChild:
    """A handle on one child at a time; ``start`` and ``run`` replace it when that is needed.

    Not thread safe: one slot owns one child.
    """

    def __init__(self, settings: WorkerSettings, gpu: GpuHold | None = None) -> None:
        self._settings = settings
        self._gpu = gpu
        self._process: subprocess.Popen[bytes] | None = None
        self._requests = -1
        self._events = -1
        self._buffer = b""
        self._builds = 0

    def start(self, check: Callable[[], None] = lambda: None) -> Ready:
        """Starts a fresh child and waits until TensorRT is loaded.

        ``check`` is called now and then meanwhile, and may raise.

        Raises:
            ConfigurationError: it cannot be loaded, or not in ``child_start_seconds``.
        """
        self.kill()
        request_read, self._requests = os.pipe()
        self._events, event_write = os.pipe()
        command = [sys.executable, "-m", self._settings.child_module]
        arguments = [self._settings.runtime, request_read, event_write, os.getpid()]
        self._process = subprocess.Popen(
            [*command, *map(str, arguments)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=(request_read, event_write, *([self._gpu.lock] if self._gpu else [])),
            env=os.environ | mark() | ({"CUDA_VISIBLE_DEVICES": self._gpu.uuid} if self._gpu else {}),
            start_new_session=True,  # one kill ends it and all it has started
        )
        os.close(request_read)
        os.close(event_write)
        deadline = time.monotonic() + self._settings.child_start_seconds
        while time.monotonic() < deadline:
            message = self._receive(_POLL_SECONDS)
            if isinstance(message, Ready):
                return message
            if isinstance(message, Failed):
                self.kill()
                raise ConfigurationError(message.error.message, hint=message.error.hint)
            if isinstance(message, Crashed):
                raise ConfigurationError(f"TensorRT could not be loaded: {message.error.message}")
            check()
        self.kill()
        raise ConfigurationError("TensorRT did not load in time.", hint="Raise worker.child_start_seconds.")

    def warm(self) -> None:
        """Starts a child if there is none, so that the next job need not wait for it. See ``start``."""
        if self._process is None or self._process.poll() is not None:
            self.start()

    def run(
        self,
        request: ChildRequest,
        interruption: Callable[[], Outcome | None],
        on_progress: Callable[[Progress], None],
    ) -> Done | Failed | Crashed | Interrupted:
        """Runs one request; when ``interruption`` tells an outcome, the child is killed at once.

        Raises:
            ConfigurationError: a new child was needed, and did not start.
        """

        def check() -> None:
            if (outcome := interruption()) is not None:
                raise _StoppedError(outcome)

        try:
            if self._process is None or self._process.poll() is not None:
                self.start(check)
            self._send(request)
            return self._follow(on_progress, check)
        except _StoppedError as stopped:
            self.kill()
            return Interrupted(stopped.outcome)

    def _follow(
        self, on_progress: Callable[[Progress], None], check: Callable[[], None]
    ) -> Done | Failed | Crashed:
        while True:
            message = self._receive(_POLL_SECONDS)
            if isinstance(message, Done | Failed):
                self._recycle(message)
                return message
            if isinstance(message, Crashed):
                return message
            if isinstance(message, Progressed):
                on_progress(Progress(stage=message.stage, fraction=message.fraction))
            check()

    def cpu_seconds(self) -> float:
        """What the child at hand has used so far."""
        return cpu_seconds(self._process.pid) if self._process else 0.0

    def kill(self) -> None:
        """Ends the child and everything it started. Harmless if there is none."""
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._forget()

    def _recycle(self, message: Done | Failed) -> None:
        self._builds += 1
        if isinstance(message, Failed):
            unfit = message.tainted
        else:
            unfit = message.rss_bytes > self._settings.child_max_rss_bytes
        if unfit or self._builds >= self._settings.child_max_builds:
            self.kill()

    def _send(self, request: ChildRequest) -> None:
        data = request.model_dump_json(exclude_none=True).encode() + b"\n"
        with contextlib.suppress(BrokenPipeError):  # its end is noticed where events are read
            while data:
                data = data[os.write(self._requests, data) :]

    def _receive(self, timeout_seconds: float) -> ChildMessage | Crashed | None:
        """The next message; None after ``timeout_seconds`` without one."""
        while b"\n" not in self._buffer:
            if not self._readable(timeout_seconds):
                # A process that the child left behind may hold the pipe open.
                ended = self._process is not None and self._process.poll() is not None
                return self._reap() if ended and not self._readable(0) else None
            data = os.read(self._events, 1 << 16)
            if not data:
                return self._reap()
            self._buffer += data
            if len(self._buffer) > _MESSAGE_LIMIT_BYTES:
                return self._garbled()
        line, _, self._buffer = self._buffer.partition(b"\n")
        try:
            return child_message.validate_json(line)
        except ValidationError:
            return self._garbled()

    def _readable(self, timeout_seconds: float) -> bool:
        return bool(select.select([self._events], [], [], timeout_seconds)[0])

    def _garbled(self) -> Crashed:
        self.kill()
        return Crashed(None)

    def _reap(self) -> Crashed:
        """The child is gone, or has closed the pipe and is about to be."""
        process = self._process
        if process is None:
            return Crashed(None)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=2)
        self.kill()
        return Crashed(process.returncode)

    def _forget(self) -> None:
        os.close(self._requests)
        os.close(self._events)
        self._process, self._buffer, self._builds = None, b"", 0
