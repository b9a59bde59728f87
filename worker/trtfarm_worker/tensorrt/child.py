"""The child process: loads TensorRT, then builds what its worker asks for until the pipe closes.

    python -m trtfarm_worker.tensorrt.child FLAVOUR REQUESTS_FD EVENTS_FD WORKER_PID SETUP

Standard output and error go to the log of the job at hand: TensorRT's compilers print there.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TextIO

from trtfarm import sandbox
from trtfarm.contract.target import RTX, Runtime
from trtfarm.contract.v1 import ErrorView
from trtfarm.errors import ConfigurationError, TrtFarmError
from trtfarm_worker.child.box import inside_of, outside_of
from trtfarm_worker.child.forks import attempt, serve
from trtfarm_worker.child.lifeline import die_with_parent
from trtfarm_worker.child.protocol import (
    BuildRequest,
    Built,
    ChildMessage,
    ChildRequest,
    ChildSetup,
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
    setup = ChildSetup.model_validate_json(sys.argv[5])
    die_with_parent(worker_pid)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the worker, which then ends its child
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    events = os.fdopen(events_fd, "w", encoding="utf-8")

    def send(message: ChildMessage) -> None:
        events.write(message.model_dump_json() + "\n")
        events.flush()

    with os.fdopen(requests_fd, encoding="utf-8") as requests, os.fdopen(setup.control_fd, "w") as control:
        try:
            _serve(flavour, setup, requests, control, events_fd, send)
        except TrtFarmError as error:
            send(Failed(error=error_view(error)))


def _serve(
    flavour: str,
    setup: ChildSetup,
    requests: TextIO,
    control: TextIO,
    events_fd: int,
    send: Callable[[ChildMessage], None],
) -> None:
    """Without a GPU, each request is confined in a fork. CUDA does not survive one: there, this process is,
    before it loads anything, since Landlock does not bind threads that are there already.
    """
    forks = flavour == RTX
    parts = sandbox.check(setup.sandbox) if forks else _confine(setup, gpu=flavour)
    trt = bindings.load(flavour)
    builder = EngineBuilder(trt, bindings.runtime_of(trt, flavour))
    multiprocessors = _gpu(builder)
    if forks:
        sandbox.prepare()
        _prove(setup, events_fd)
    else:
        sandbox.tighten(parts)
    send(
        Ready(
            runtime=str(Runtime(flavour, trt.__version__)),
            gpus=builder.gpus,
            sandbox=parts,
            forks=forks,
            **multiprocessors,
        )
    )

    def run(line: str) -> None:
        request = child_request.validate_json(line)
        if forks:
            _confine(setup, attempt=Path(request.log_path).parent.name)
        send(handle(builder, request, send))

    if forks:
        serve(requests, control, events_fd, run)
    else:
        for line in requests:
            run(line)


def _confine(setup: ChildSetup, *, gpu: str | None = None, attempt: str = "") -> tuple[sandbox.Part, ...]:
    """``gpu``: the flavour of TensorRT that is still to be loaded."""
    box = Path(setup.box)
    return sandbox.confine(
        sandbox.Box(
            read=(inside_of(box, attempt), *(bindings.folders(gpu) if gpu else ())),
            write=(outside_of(box, attempt),),
            memory_bytes=setup.memory_bytes,
            file_bytes=setup.file_bytes,
            gpu=gpu is not None,
        ),
        setup.sandbox,
    )


def _prove(setup: ChildSetup, events_fd: int) -> None:
    """Raises ConfigurationError: the kernel offers a sandbox that it then refuses."""
    if attempt(partial(_confine, setup), events_fd) != 0:
        raise ConfigurationError(
            "The sandbox cannot be put in force.",
            hint="A container's own seccomp profile may refuse it. worker.sandbox = 'off' does without.",
        )


def handle(
    builder: EngineBuilder, request: ChildRequest, send: Callable[[ChildMessage], None]
) -> Done | Failed:
    """One request; every failure is a value."""
    with _logging_to(Path(request.log_path)) as log:
        try:
            builder.log.start(log)
            return _answer(builder, request, lambda stage, part: send(Progressed(stage=stage, fraction=part)))
        except BuildRefusedError as error:
            # Seen with TensorRT-RTX 1.7.1: after a refused build, the same process builds other bytes.
            return Failed(error=error.view, retryable=is_the_gpus(error.view), tainted=True)
        except TrtFarmError as error:
            return Failed(error=error_view(error))
        except OSError as error:
            return Failed(error=of_file(error).error, retryable=True)
        except Exception:
            traceback.print_exc()  # into the job's log: this process ends of it
            raise
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
