"""One child process, from its start to its end: the pipes, and what comes through them."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import NamedTuple, TypeVar

from pydantic import TypeAdapter

from trtfarm import sandbox
from trtfarm.contract.v1 import ErrorView
from trtfarm.errors import ConfigurationError
from trtfarm_worker.child.box import Box, outside_of
from trtfarm_worker.child.orphans import mark
from trtfarm_worker.child.protocol import (
    ChildMessage,
    ChildRequest,
    ChildSetup,
    Ended,
    Failed,
    Progressed,
    Ready,
    child_message,
)
from trtfarm_worker.child.stall import cpu_seconds
from trtfarm_worker.settings import WorkerSettings

POLL_SECONDS = 0.1
_MESSAGE_LIMIT_BYTES = 4 << 20
# A fork has no memory of its own yet: large pages and one heap make a tenth of the page faults of a build.
_MALLOC = "glibc.malloc.hugetlb=1:glibc.malloc.mmap_threshold=268435456"
_ended: TypeAdapter[Ended] = TypeAdapter(Ended)
T = TypeVar("T")


class Crashed(NamedTuple):
    """The child, or its request's process, ended by itself, or had to be ended: it sent what is no message
    (``status`` None).

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


class GpuHold(NamedTuple):
    """The GPU a child may see, and the descriptor of its lock, which the child inherits."""

    uuid: str
    lock: int


class _Pipe:
    """Lines from a child."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._buffer = b""

    def read(self) -> bool:
        """False at its end. Raises ValueError: a line is longer than any message."""
        data = os.read(self.descriptor, 1 << 16)
        self._buffer += data
        if len(self._buffer) > _MESSAGE_LIMIT_BYTES:
            raise ValueError("This is no message.")
        return bool(data)

    def line(self) -> bytes | None:
        line, newline, rest = self._buffer.partition(b"\n")
        if not newline:
            return None
        self._buffer = rest
        return line

    def drain(self) -> None:
        """Forgets what a request's process has left behind. Nobody may write any more."""
        while _readable([self.descriptor], 0) and os.read(self.descriptor, 1 << 16):
            pass
        self._buffer = b""


class ChildProcess:
    """A running child. Not thread safe; it ends with the thread that has started it."""

    def __init__(self, settings: WorkerSettings, gpu: GpuHold | None) -> None:
        """Raises OSError: there is no room for its box."""
        self.box = Box.make(settings.scratch / "boxes")
        self.served: str | None = None  # a submitter
        self.requests = 0
        self._settings = settings
        self._ready: Ready | None = None
        request_read, self._requests = os.pipe()
        events, event_write = os.pipe()
        control, control_write = os.pipe()
        self._events, self._control = _Pipe(events), _Pipe(control)
        setup = ChildSetup(
            control_fd=control_write,
            box=str(self.box.path),
            sandbox=settings.sandbox,
            memory_bytes=settings.child_memory_bytes,
            file_bytes=settings.child_file_bytes,
        )
        arguments = [settings.runtime, request_read, event_write, os.getpid(), setup.model_dump_json()]
        self._process = subprocess.Popen(
            [sys.executable, "-m", settings.child_module, *map(str, arguments)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=(request_read, event_write, control_write, *([gpu.lock] if gpu else [])),
            env=self._environment(gpu),
            start_new_session=True,  # one kill ends it and all it has started
        )
        for descriptor in (request_read, event_write, control_write):
            os.close(descriptor)
        self._deadline = time.monotonic() + settings.child_start_seconds

    def _environment(self, gpu: GpuHold | None) -> dict[str, str]:
        """An allow-list: the worker's own has the keys of the farm."""
        names = self._settings.child_variables
        asked = {name: os.environ[name] for name in names if name in os.environ}
        # Ahead-of-time builds need no GPU, and CUDA would not survive the forks of their process.
        fixed = {"CUDA_VISIBLE_DEVICES": gpu.uuid if gpu else "", "CUDA_CACHE_DISABLE": "1"}
        if gpu is None:
            fixed["GLIBC_TUNABLES"] = _MALLOC
        folder = str(outside_of(self.box.path))
        return sandbox.environment(**asked, **mark(), **fixed, HOME=folder, TMPDIR=folder)

    def wait_until_ready(self, check: Callable[[], None]) -> Ready:
        """What it has loaded; at once if it has told before. ``check`` is called now and then, and may raise.

        Raises:
            ConfigurationError: TensorRT cannot be loaded, or not in ``child_start_seconds``.
        """
        while self._ready is None:
            message = self.receive()
            if isinstance(message, Ready):
                self._ready = message
            elif isinstance(message, Failed):
                raise ConfigurationError(message.error.message, hint=message.error.hint)
            elif isinstance(message, Crashed):
                raise ConfigurationError(f"TensorRT could not be loaded: {message.error.message}")
            elif time.monotonic() > self._deadline:
                raise ConfigurationError(
                    "TensorRT did not load in time.", hint="Raise worker.child_start_seconds."
                )
            check()
        return self._ready

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    @property
    def forks(self) -> bool:
        return self._ready is not None and self._ready.forks

    def cpu_seconds(self) -> float:
        return cpu_seconds(self._process.pid)

    def send(self, request: ChildRequest) -> None:
        self.requests += 1
        data = request.model_dump_json(exclude_none=True).encode() + b"\n"
        with contextlib.suppress(BrokenPipeError):  # its end is noticed where events are read
            while data:
                data = data[os.write(self._requests, data) :]

    def receive(self) -> ChildMessage | Ended | Crashed | None:
        """The next message; None after ``POLL_SECONDS`` without one."""
        try:
            return self._receive()
        except ValueError:  # ValidationError is one
            self.kill()
            return Crashed(None)

    def _receive(self) -> ChildMessage | Ended | Crashed | None:
        pipes = (self._events, self._control)
        while True:
            # What a request's process has said comes before the news of its end.
            if (line := self._events.line()) is not None:
                return _parsed(child_message, line)
            if _readable([self._events.descriptor], 0):
                if not self._events.read():
                    return self._reap()
                continue
            if (line := self._control.line()) is not None:
                return _parsed(_ended, line)
            ready = _readable([pipe.descriptor for pipe in pipes], POLL_SECONDS)
            if not ready:
                # A process that the child left behind may hold the pipes open.
                return None if self.is_running else self._reap()
            if self._control.descriptor in ready and not self._control.read():
                if self.forks:
                    return self._reap()
                pipes = (self._events, self._events)  # a child that does not fork may close it

    def forget_messages(self) -> None:
        """After ``Ended``: a request's process may have left half a message."""
        self._events.drain()

    def _reap(self) -> Crashed:
        """It is gone, or has closed its pipes and is about to be."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=2)
        self.kill()
        return Crashed(self._process.returncode)

    def kill(self) -> None:
        """Ends it and everything it has started, and removes its box. Harmless if that has been done."""
        if self._requests < 0:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for descriptor in (self._requests, self._events.descriptor, self._control.descriptor):
            os.close(descriptor)
        self._requests = -1
        self.box.close()


def _readable(descriptors: list[int], timeout_seconds: float) -> list[int]:
    return select.select(descriptors, [], [], timeout_seconds)[0]


def _parsed(adapter: TypeAdapter[T], line: bytes) -> T:
    """Raises ValueError, as ValidationError is one."""
    message = adapter.validate_json(line)
    if b"\\u0000" in line and not isinstance(message, Failed | Progressed):  # whose texts are mended
        raise ValueError("A name has a NUL.")
    return message
