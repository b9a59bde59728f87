"""Inspection in a process of its own.

A server must not parse untrusted bytes where it keeps its connections: the parser's memory, and its
bugs, stay in a child that can be killed. The child is kept warm, as importing ``onnx`` takes longer
than reading most models.
"""

from __future__ import annotations

import contextlib
import functools
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import ParamSpec, Self, TypeVar, cast

from trtfarm.contract.models import ModelInfo
from trtfarm.errors import ModelError, ResourceLimitError, TrtFarmError, UnavailableError
from trtfarm.inspection.inspect import inspect_model

P = ParamSpec("P")
T = TypeVar("T")
START_SECONDS = 60.0


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
        self._executor: ProcessPoolExecutor | None = None
        self._pid: int | None = None
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
                try:
                    future = self._started().submit(_outcome, work)
                    value, error = future.result(self._timeout_seconds)
                except BrokenProcessPool:
                    self._stop()
                except TimeoutError:
                    self._kill()
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
            self._kill()
            self._lock.acquire()
        try:
            self._stop()
        finally:
            self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _started(self) -> ProcessPoolExecutor:
        self._check_open()
        if self._executor is None:
            self._executor = ProcessPoolExecutor(
                1, multiprocessing.get_context("spawn"), _prepare, (self._memory_bytes,)
            )
            try:
                self._pid = self._executor.submit(os.getpid).result(START_SECONDS)
            except (BrokenProcessPool, TimeoutError) as error:
                self._stop(wait=False)
                raise UnavailableError("The process that reads models does not start.") from error
            self._check_open()  # close() may have looked for a process before there was one
        return self._executor

    def _check_open(self) -> None:
        if self._closed:
            raise UnavailableError("The farm is shutting down.")

    def _kill(self) -> None:
        if self._pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)

    def _stop(self, *, wait: bool = True) -> None:
        executor, self._executor, self._pid = self._executor, None, None
        if executor is not None:
            executor.shutdown(wait=wait, cancel_futures=True)


def _outcome(work: Callable[[], T]) -> tuple[T | None, TrtFarmError | None]:
    """In the child. An error that is raised there keeps its frames, and the model, in memory."""
    try:
        return work(), None
    except TrtFarmError as error:
        return None, error.with_traceback(None)
    except MemoryError:
        return None, ResourceLimitError()


def _prepare(memory_bytes: int) -> None:
    """In the child. The import comes before the limit, which is for models."""
    import resource

    import onnx  # noqa: F401

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to the children too
    threading.Thread(target=_end_with_parent, daemon=True).start()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))


def _end_with_parent() -> None:
    """A parent that was killed closes no queue, and the child would wait on it for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(0)
