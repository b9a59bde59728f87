"""Inspection in a process of its own.

A server must not parse untrusted bytes where it keeps its connections: the parser's memory, and its
bugs, stay in a child that can be killed. The child is kept warm, as importing ``onnx`` takes longer
than reading most models.
"""

from __future__ import annotations

import functools
import json
import multiprocessing
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ParamSpec, Self, TypeVar, cast

from trtfarm.contract.models import ModelInfo
from trtfarm.errors import ModelError, ResourceLimitError, UnavailableError
from trtfarm.inspection.inspect import inspect_model

P = ParamSpec("P")
T = TypeVar("T")
START_SECONDS = 60.0
_PROGRAM = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from trtfarm.inspection.child import main; main(int(sys.argv[2]), int(sys.argv[3]))"
)


class InspectionPool:
    """One child, one inspection at a time; callable from any thread.

    One at a time keeps the memory within one limit, and a model that kills the child fails alone.
    Nothing is started before the first call.

    Args:
        memory_bytes: address space of the child. A file takes twice its size, and the child itself 0.3 GiB.
        timeout_seconds: for one inspection, waiting for others not counted.
    """

    def __init__(self, *, memory_bytes: int = 8 << 30, timeout_seconds: float = 120.0) -> None:
        self._memory_bytes = memory_bytes
        self._timeout_seconds = timeout_seconds
        self._lock = threading.Lock()
        self._child: _Child | None = None
        self._closed = False

    def inspect(self, path: Path, external_sizes: Mapping[str, int] | None = None) -> ModelInfo:
        """``inspect_model`` in the child; its errors arrive as they were raised.

        Raises:
            ModelError: also when the child died of the model.
            ResourceLimitError: the model took too much memory or time.
            UnavailableError: the child does not start, or the pool is closed.
        """
        sizes = None if external_sizes is None else dict(external_sizes)
        return self.call(inspect_model, path, sizes)

    def warm(self) -> None:
        """Starts the child now, so that the first caller need not wait for it."""
        with self._lock:
            self._started()

    def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Any importable function, under the same limits and with the same errors.

        It is called again if the child dies, as the system may have killed that for another's sake.
        """
        work = functools.partial(function, *args, **kwargs)
        with self._lock:
            for _ in range(2):
                child = self._started()
                try:
                    value, error = child.call(work, self._timeout_seconds)
                except _DiedError:
                    self._stop()
                except TimeoutError:
                    self._stop()
                    raise ResourceLimitError(
                        f"Reading the model took more than {self._timeout_seconds:g} s."
                    ) from None
                else:
                    if error is not None:
                        raise error
                    return cast("T", value)
            raise ModelError("The process that read the model died of it, twice.")

    def close(self) -> None:
        """Leaves no process. An inspection in progress is cut short."""
        self._closed = True
        if not self._lock.acquire(blocking=False):
            child = self._child
            if child is not None:
                child.kill()
            self._lock.acquire()
        try:
            self._stop()
        finally:
            self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _started(self) -> _Child:
        self._check_open()
        if self._child is None:
            self._child = _Child(self._memory_bytes)
            try:
                self._child.receive(START_SECONDS)
            except (_DiedError, TimeoutError) as error:
                self._stop()
                self._check_open()  # close() may have been what ended it
                raise UnavailableError("The process that reads models does not start.") from error
        return self._child

    def _check_open(self) -> None:
        if self._closed:
            raise UnavailableError("The farm is shutting down.")

    def _stop(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            child.close()


class _DiedError(Exception):
    """The child is gone."""


class _Child:
    """Not one of multiprocessing's: those run the parent's main module again, and so a person's script."""

    def __init__(self, memory_bytes: int) -> None:
        self._line, theirs = multiprocessing.Pipe()
        with theirs:
            descriptor = theirs.fileno()
            arguments = [json.dumps(sys.path), str(descriptor), str(memory_bytes)]
            self._process = subprocess.Popen(
                [sys.executable, "-c", _PROGRAM, *arguments],
                stdin=subprocess.DEVNULL,
                pass_fds=(descriptor,),
            )

    def call(self, work: Callable[[], Any], timeout_seconds: float) -> Any:
        """Raises _DiedError, TimeoutError."""
        try:
            self._line.send(work)
        except OSError as error:
            raise _DiedError from error
        return self.receive(timeout_seconds)

    def receive(self, timeout_seconds: float) -> Any:
        try:
            if not self._line.poll(timeout_seconds):
                raise TimeoutError
            return self._line.recv()
        except (EOFError, ConnectionError) as error:
            raise _DiedError from error

    def kill(self) -> None:
        """From any thread; who waits for an answer learns that there will be none."""
        self._process.kill()

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        self._line.close()
