"""The process that reads models: takes calls from a connection, answers, and ends with its parent."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import TypeVar

from trtfarm.errors import ResourceLimitError, TrtFarmError

T = TypeVar("T")


def main(descriptor: int, memory_bytes: int) -> None:
    """``descriptor``: of a socket; ``memory_bytes``: of address space."""
    import resource

    import onnx  # noqa: F401 - before the limit, which is for models

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to the children too
    threading.Thread(target=_end_with_parent, args=(descriptor,), daemon=True).start()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    with Connection(descriptor) as line, contextlib.suppress(EOFError, ConnectionError):
        line.send(os.getpid())
        while True:
            line.send(_outcome(line.recv()))


def _outcome(work: Callable[[], T]) -> tuple[T | None, TrtFarmError | None]:
    """An error that is raised here keeps its frames, and the model, in memory."""
    try:
        return work(), None
    except TrtFarmError as error:
        return None, error.with_traceback(None)
    except MemoryError:
        return None, ResourceLimitError()


def _end_with_parent(descriptor: int) -> None:
    """Also in the middle of a call: a parent that was killed waits for no answer."""
    hung_up = select.poll()
    hung_up.register(descriptor, 0)
    hung_up.poll()
    os._exit(0)
