"""The child process: loads TensorRT, then builds what its worker asks for until the pipe closes.

    python -m trtfarm_worker.tensorrt.child FLAVOUR REQUESTS_FD EVENTS_FD WORKER_PID

Standard output and error go to the log of the job at hand: TensorRT's compilers print there.
"""

from __future__ import annotations

import contextlib
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
from trtfarm_worker.child.lifeline import die_with_parent
from trtfarm_worker.child.protocol import (
    BuildRequest,
    Built,
    ChildMessage,
    ChildRequest,
    Combined,
    CombineRequest,
    Done,
    Failed,
    Measured,
    Progressed,
    Ready,
    child_request,
)
from trtfarm_worker.failures import is_the_gpus, of_file
from trtfarm_worker.tensorrt import bindings
from trtfarm_worker.tensorrt.builder import BuildRefusedError, EngineBuilder, OnProgress


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
    send(Ready(runtime=str(Runtime(flavour, trt.__version__)), gpus=builder.gpus, **_gpu(builder)))
    for line in requests:
        send(handle(builder, child_request.validate_json(line), send))


def handle(
    builder: EngineBuilder, request: ChildRequest, send: Callable[[ChildMessage], None]
) -> Done | Failed:
    """One request; every failure is a value."""
    with _logging_to(Path(request.log_path)) as log:
        builder.log.start(log)
        try:
            return _answer(builder, request, lambda stage, part: send(Progressed(stage=stage, fraction=part)))
        except BuildRefusedError as error:
            # Seen with TensorRT-RTX 1.7.1: after a refused build, the same process builds other bytes.
            return Failed(error=error.view, retryable=is_the_gpus(error.view), tainted=True)
        except TrtFarmError as error:
            return Failed(error=error_view(error))
        except OSError as error:
            return Failed(error=of_file(error).error, retryable=True)
        finally:
            builder.log.start(None)


def _answer(builder: EngineBuilder, request: ChildRequest, on_progress: OnProgress) -> Done:
    if isinstance(request, BuildRequest):
        seconds, report = builder.build(request, on_progress)
        return Built(build_seconds=seconds, rss_bytes=_peak_bytes(), timing_cache=report)
    if isinstance(request, CombineRequest):
        return Combined(ok=builder.combine(request), rss_bytes=_peak_bytes())
    return Measured(measurement=builder.benchmark(request, on_progress), rss_bytes=_peak_bytes())


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _gpu(builder: EngineBuilder) -> dict[str, int]:
    """Of the GPU that builds go to; nothing for ahead-of-time builds, which need none."""
    if builder.gpus:
        return {}
    from trtfarm_worker.tensorrt.cuda import Cuda

    return {"multiprocessors": Cuda().multiprocessors()}


def error_view(error: TrtFarmError) -> ErrorView:
    return ErrorView(code=error.code, message=error.message, hint=error.hint, details=error.details)


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
    with contextlib.suppress(BrokenPipeError):  # its worker is gone
        main()
