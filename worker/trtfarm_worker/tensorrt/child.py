"""The child process: loads TensorRT, then builds what its worker asks for until the pipe closes.

    python -m trtfarm_worker.tensorrt.child FLAVOUR REQUESTS_FD EVENTS_FD WORKER_PID

Standard output and error go to the log of the job at hand: TensorRT's compilers print there.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TextIO

from trtfarm.contract.target import Runtime
from trtfarm.contract.v1 import ErrorView
from trtfarm.errors import TrtFarmError
from trtfarm_worker.protocol import BuildRequest, Built, ChildMessage, Failed, Progressed, Ready
from trtfarm_worker.tensorrt import bindings
from trtfarm_worker.tensorrt.builder import BuildRefusedError, EngineBuilder

_PR_SET_PDEATHSIG = 1


def main() -> None:
    flavour, requests_fd, events_fd, worker_pid = sys.argv[1], *map(int, sys.argv[2:5])
    die_with_parent(worker_pid)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the worker, which then ends its child
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    requests = os.fdopen(requests_fd, encoding="utf-8")
    events = os.fdopen(events_fd, "w", encoding="utf-8")

    def send(message: ChildMessage) -> None:
        events.write(message.model_dump_json() + "\n")
        events.flush()

    try:
        trt = bindings.load(flavour)
        builder = EngineBuilder(trt, bindings.runtime_of(trt, flavour))
    except TrtFarmError as error:
        send(Failed(error=error_view(error)))
        return
    send(Ready(runtime=str(Runtime(flavour, trt.__version__)), gpus=builder.gpus))
    for line in requests:
        send(handle(builder, BuildRequest.model_validate_json(line), send))


def handle(
    builder: EngineBuilder, request: BuildRequest, send: Callable[[ChildMessage], None]
) -> Built | Failed:
    """One build; every failure is a value."""
    with _logging_to(Path(request.log_path)) as log:
        builder.log.start(log)
        try:
            seconds = builder.build(
                request.spec,
                Path(request.model_path),
                Path(request.plan_path),
                Path(request.io_path),
                lambda stage, fraction: send(Progressed(stage=stage, fraction=fraction)),
            )
        except BuildRefusedError as error:
            return Failed(error=error.view)
        except TrtFarmError as error:
            return Failed(error=error_view(error))
        except OSError as error:
            view = ErrorView(code="WORKER_IO", message=f"The worker could not write the plan: {error}")
            return Failed(error=view, retryable=True)
        finally:
            builder.log.start(None)
    peak_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return Built(build_seconds=seconds, rss_bytes=peak_kib * 1024)


def error_view(error: TrtFarmError) -> ErrorView:
    return ErrorView(code=error.code, message=error.message, hint=error.hint, details=error.details)


def die_with_parent(parent_pid: int) -> None:
    """The kernel kills this process when its worker is gone, however that ended."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent_pid:  # it went before the call above
        os._exit(1)


@contextlib.contextmanager
def _logging_to(path: Path) -> Iterator[TextIO]:
    with path.open("a", encoding="utf-8", errors="replace") as log:
        saved = os.dup(1), os.dup(2)
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        try:
            yield log
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            for descriptor, copy in enumerate(saved, start=1):
                os.dup2(copy, descriptor)
                os.close(copy)


if __name__ == "__main__":
    main()
