"""Inspection in processes of their own.

A server must not parse untrusted bytes where it keeps its connections: the parser's memory, and its
bugs, stay in a process that sees one model, has no files, and can be killed. Inspectors are kept warm, as
importing ``onnx`` takes longer than reading most models.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO, Self

from pydantic import ValidationError

from trtfarm import failpoints
from trtfarm.contract.models import ModelInfo
from trtfarm.errors import ModelError, ResourceLimitError, UnavailableError
from trtfarm.inspection.wire import MAX_ANSWER_BYTES, NoAnswerError, Request, Verdict, info_of, receive, send
from trtfarm.sandbox import Mode, environment

START_SECONDS = 60.0
_GRACE_SECONDS = 10.0  # for the inspector to say that the time is over
_MEMORY_BASE = 512 << 20
_MEMORY_FACTOR = 32
"""Bytes of memory for a byte of a file: real models take up to ten, and the worst that was made a hundred."""
_MEMORY_STEP = 1 << 30
"""So that a process can read another model of nearly the same size."""
_PROGRAM = (
    "import importlib, json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "importlib.import_module(sys.argv[2]).main(int(sys.argv[3]), sys.argv[4])"
)
_log = logging.getLogger(__name__)


class InspectionPool:
    """Some inspectors, each reading one model at a time; callable from any thread.

    A model that kills the process that reads it fails alone. Nothing is started before the first call.

    Args:
        processes: models read at once; who comes when all are busy waits, in no order.
        memory_bytes: address space for one model. The processes themselves take 0.3 GiB and a file twice its
            size. A small file gets less: 0.5 GiB and 32 times its size, in whole GiB.
        timeout_seconds: for one inspection, waiting for others not counted.
        sandbox: what confines the process that reads.
        module: what inspectors run: the farm's own; tests have another.
    """

    def __init__(
        self,
        *,
        processes: int = 1,
        memory_bytes: int = 8 << 30,
        timeout_seconds: float = 120.0,
        sandbox: Mode = Mode.AUTO,
        module: str = "trtfarm.inspection.child",
    ) -> None:
        self.processes = processes
        self._memory_bytes = memory_bytes
        self._timeout_seconds = timeout_seconds
        self._command = [sys.executable, "-c", _PROGRAM, json.dumps(sys.path), module]
        self._sandbox = sandbox
        self._free = threading.Semaphore(processes)
        self._lock = threading.Lock()  # of what follows, and held for no longer than it takes to look
        self._idle: list[_Inspector] = []
        self._all: set[_Inspector] = set()
        self._closed = False

    def inspect(
        self, source: Path | BinaryIO, external_sizes: Mapping[str, int] | None = None, submitter: str = ""
    ) -> ModelInfo:
        """``inspect_model`` in a process of the submitter's own; its errors arrive as they were raised.

        The file is read again if the process dies, as the system may have killed that for another's sake.

        Raises:
            ModelError: also when the process died of the model.
            ResourceLimitError: the model took too much memory or time.
            UnavailableError: the inspector does not start, or the pool is closed.
        """
        if isinstance(source, Path):
            try:
                # Without waiting for the other end of what may be a pipe.
                descriptor = os.open(source, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            except OSError as error:
                raise ModelError(f"{source.name!r} cannot be read: {error.strerror}.") from error
            with open(descriptor, "rb") as file:  # noqa: PTH123
                return self.inspect(file, external_sizes, submitter)
        request = Request(
            submitter=submitter,
            sizes=None if external_sizes is None else dict(external_sizes),
            memory_bytes=self._memory_for(os.fstat(source.fileno()).st_size),
            timeout_seconds=self._timeout_seconds,
        )
        with self._free:
            for _ in range(2):
                source.seek(0)  # the reader shares the position
                with contextlib.suppress(_DiedError):
                    return self._ask(request, source.fileno())
            raise ModelError("The process that read the model died of it, twice.")

    def warm(self) -> None:
        """Starts an inspector now, so that the first caller need not wait for it."""
        with self._free:
            self._put(self._take())

    def close(self) -> None:
        """Leaves no process. Inspections in progress are cut short."""
        with self._lock:
            self._closed = True
            every, self._all, self._idle = self._all, set(), []
        for inspector in every:
            inspector.end()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _memory_for(self, size_bytes: int) -> int:
        wanted = _MEMORY_BASE + _MEMORY_FACTOR * size_bytes
        return min(self._memory_bytes, -(-wanted // _MEMORY_STEP) * _MEMORY_STEP)

    def _ask(self, request: Request, descriptor: int) -> ModelInfo:
        inspector = self._take()
        try:
            verdict, answer = inspector.ask(request, descriptor)
        except BaseException:
            self._drop(inspector)
            self._check_open()  # close() may have been what ended it
            raise
        self._put(inspector)
        if verdict.fate == "timeout":
            raise ResourceLimitError(f"Reading the model took more than {self._timeout_seconds:g} s.")
        if verdict.fate != "answered":
            raise _DiedError(verdict.status)
        try:
            return info_of(answer)
        except NoAnswerError as error:
            _log.error("reading a model failed: %s", error)
            raise ModelError("The model could not be read.") from None

    def _take(self) -> _Inspector:
        with self._lock:
            self._check_open()
            if self._idle:
                return self._idle.pop()
            inspector = _Inspector(self._command, self._sandbox)
            self._all.add(inspector)
        try:
            inspector.wait_until_ready()
        except _DiedError as error:
            self._drop(inspector)
            self._check_open()
            raise UnavailableError("The process that reads models does not start.") from error
        return inspector

    def _put(self, inspector: _Inspector) -> None:
        with self._lock:
            if not self._closed:
                self._idle.append(inspector)

    def _drop(self, inspector: _Inspector) -> None:
        with self._lock:
            self._all.discard(inspector)
        inspector.end()

    def _check_open(self) -> None:
        if self._closed:
            raise UnavailableError("The farm is shutting down.")


class _DiedError(Exception):
    """The process is gone, or says what makes no sense."""


class _Inspector:
    """Not one of multiprocessing's: those run the parent's main module again, and so a person's script."""

    def __init__(self, command: list[str], sandbox: Mode) -> None:
        self._line, theirs = socket.socketpair()
        with theirs:
            more = {name: value for name in (failpoints.VARIABLE,) if (value := os.environ.get(name))}
            self._process = subprocess.Popen(
                [*command, str(theirs.fileno()), sandbox],
                stdin=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                env=environment(OPENBLAS_NUM_THREADS="1", **more),  # with one thread it can fork
            )

    def wait_until_ready(self) -> None:
        """Raises _DiedError."""
        if self._verdict(START_SECONDS).fate != "ready":
            raise _DiedError

    def ask(self, request: Request, descriptor: int) -> tuple[Verdict, bytes]:
        """Raises _DiedError."""
        try:
            self._line.settimeout(_GRACE_SECONDS)
            send(self._line, request.model_dump_json().encode(), descriptor=descriptor)
            verdict = self._verdict(request.timeout_seconds + _GRACE_SECONDS)
            answer = receive(self._line, MAX_ANSWER_BYTES) if verdict.fate == "answered" else b""
        except (OSError, EOFError, ValueError) as error:
            raise _DiedError from error
        return verdict, answer

    def _verdict(self, seconds: float) -> Verdict:
        self._line.settimeout(seconds)
        try:
            return Verdict.model_validate_json(receive(self._line, 1000))
        except (OSError, EOFError, ValueError, ValidationError) as error:
            raise _DiedError from error

    def end(self) -> None:
        """From any thread; who waits for an answer learns that there will be none.

        The process that reads goes with the one that has forked it.
        """
        self._process.kill()
        self._process.wait()
        with contextlib.suppress(OSError):
            self._line.shutdown(socket.SHUT_RDWR)
        self._line.close()
