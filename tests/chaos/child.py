"""Speaks the protocol of the TensorRT child and does what its build says, well or badly.

``CHAOS_FOLDER`` is where it writes when it worked on which GPU (``intervals``, appended to), and where it
holds a lock for its GPU from its first request on, as long as it lives: two at a time are a conflict, which
it writes down. A child that waits for the next submitter holds nothing.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.chaos.behaviour import Behaviour, behaviour_of

FOLDER = Path(os.environ.get("CHAOS_FOLDER", ""))
GPU = os.environ.get("CUDA_VISIBLE_DEVICES", "")
FOREVER = 3600
CHILD = f"{os.getpid()} {time.monotonic_ns()}"  # in a long run, numbers of processes come again
_PR_SET_PDEATHSIG = 1
_LOCK_SECONDS = 1.0  # for what the child before this one has started, and which is being killed
_FLOOD_BYTES = 2 << 20
Send = Callable[..., None]


def main() -> None:
    flavour, requests_fd, events_fd, worker_pid = sys.argv[1], *map(int, sys.argv[2:5])
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != worker_pid:
        os._exit(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    requests = os.fdopen(requests_fd, encoding="utf-8")
    events = os.fdopen(events_fd, "w", encoding="utf-8")

    def send(**message: Any) -> None:
        events.write(json.dumps(message) + "\n")
        events.flush()

    if GPU:
        send(event="ready", runtime="tensorrt-10.16.1", gpus=[], multiprocessors=58)
    else:
        send(event="ready", runtime=f"{flavour}-1.7.1.116", gpus=["cc-8.9"])
    for number, line in enumerate(requests):
        if GPU and number == 0:
            _hold_gpu()
        request = json.loads(line)
        if request["op"] == "combine":
            _combine(request, send)
        elif "memory_pool_limits" not in request["spec"]["config"]:  # the worker's own
            Path(request["plan_path"]).write_text("a plan")
            send(event="built", build_seconds=0.0, rss_bytes=1)
        else:
            _build(request, send, events_fd)


def _hold_gpu() -> None:
    descriptor = os.open(FOLDER / f"{GPU}.live", os.O_RDWR | os.O_CREAT)
    end = time.monotonic() + _LOCK_SECONDS
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > end:
                note("conflict")
                return
            time.sleep(0.01)
        else:
            return


def note(event: str, **more: Any) -> None:
    line = {"event": event, "gpu": GPU, "child": CHILD, "at": time.monotonic_ns(), **more}
    descriptor = os.open(FOLDER / "intervals", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, (json.dumps(line) + "\n").encode())
    os.close(descriptor)


def _build(request: dict[str, Any], send: Send, events_fd: int) -> None:
    job_id, _, fence = Path(request["plan_path"]).parent.name.rpartition(".")
    behaviour, seconds = behaviour_of(request["spec"]["config"]["memory_pool_limits"]["workspace"])
    note("start", job=job_id, fence=int(fence))
    first = fence == "1"
    log = Path(request["log_path"])
    with log.open("a") as file:
        file.write(f"building {job_id}, fence {fence}\n")
    if behaviour is Behaviour.POISON or (behaviour is Behaviour.CRASH_ONCE and first):
        os.kill(os.getpid(), signal.SIGSEGV)
    elif behaviour is Behaviour.HANG:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        _fork()
        time.sleep(FOREVER)
    elif behaviour is Behaviour.FULL_DISK_ONCE and first:
        _fill_the_disk(request, send)
        note("stop", job=job_id, fence=int(fence))
        return
    elif behaviour is Behaviour.REFUSE:
        note("stop", job=job_id, fence=int(fence))
        send(event="failed", error={"code": "BUILD_FAILED", "message": "TensorRT does not like it."})
        return
    elif behaviour is Behaviour.PARTIAL_ONCE and first:
        Path(request["plan_path"]).write_bytes(b"half a pl")
        os.kill(os.getpid(), signal.SIGKILL)
    elif behaviour is Behaviour.GARBAGE_ONCE and first:
        os.write(events_fd, b'\xff\x00{"event": "built"\n')
        time.sleep(FOREVER)
    elif behaviour is Behaviour.FORK:
        _fork()
    elif behaviour is Behaviour.FLOOD:
        with log.open("a") as file:
            file.write("x" * _FLOOD_BYTES)
    _work(seconds, send)
    plan = {"job": job_id, "fence": int(fence), "pid": os.getpid(), "padding": "p" * 2000}
    Path(request["plan_path"]).write_text(json.dumps(plan))
    Path(request["io_path"]).write_text("{}")
    note("stop", job=job_id, fence=int(fence))
    report = {"timing_cache": _learn(request, job_id)} if request.get("timing_cache_out") else {}
    send(event="built", build_seconds=seconds, rss_bytes=1, **report)


def _work(seconds: float, send: Send) -> None:
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        send(event="progress", stage="building", fraction=max(0.0, 1 - left / seconds))
        time.sleep(min(0.3, left))


def _fork() -> None:
    if os.fork() == 0:
        time.sleep(FOREVER)
        os._exit(0)


def _fill_the_disk(request: dict[str, Any], send: Send) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        Path(request["plan_path"]).write_bytes(b"p" * 2000)
    except OSError as error:
        view = {"code": "WORKER_IO", "message": f"The worker could not write a file: {error}"}
        send(event="failed", error=view, retryable=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


# --- a timing cache is a set of lines ---


def entries(path: str | Path) -> set[str]:
    return set(Path(path).read_text().split())


def _learn(request: dict[str, Any], entry: str) -> dict[str, Any]:
    start = request.get("timing_cache_in")
    before = entries(start) if start else set()
    after = before | {entry}
    save(request["timing_cache_out"], after)
    return {
        "attached": True,
        "entries_before": len(before),
        "entries_after": len(after),
        "bytes_before": Path(start).stat().st_size if start else 0,
        "bytes_after": Path(request["timing_cache_out"]).stat().st_size,
    }


def _combine(request: dict[str, Any], send: Send) -> None:
    save(request["destination"], entries(request["base"]) | entries(request["addition"]))
    send(event="combined", ok=True, rss_bytes=1)


def save(path: str, lines: set[str]) -> None:
    Path(path).write_text("\n".join(sorted(lines)) + "\n")


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):  # its worker is gone
        main()
