"""Speaks the protocol of the TensorRT child, and misbehaves as the text of the "model" says.

FAKE_CHILD_START in the environment says how it starts, FAKE_CHILD_PROBE what it does with a real model.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

FOREVER = 3600


def main() -> None:
    requests = os.fdopen(int(sys.argv[2]), encoding="utf-8")
    events = os.fdopen(int(sys.argv[3]), "w", encoding="utf-8")

    def send(**message: Any) -> None:
        events.write(json.dumps(message) + "\n")
        events.flush()

    start = os.environ.get("FAKE_CHILD_START", "")
    if start == "exit":
        sys.exit(1)
    if start == "hang":
        time.sleep(FOREVER)
    if start == "slow":
        time.sleep(0.5)
    if start == "refuse":
        send(event="failed", error={"code": "CONFIGURATION", "message": "No bindings.", "hint": "Install."})
        return
    print("a library greets")
    send(event="ready", runtime="tensorrt-rtx-1.0", gpus=["cc-8.9"])
    for line in requests:
        request = json.loads(line)
        words = words_of(Path(request["model_path"]).read_bytes())
        BEHAVIOURS[words[0]](request, send, *words[1:])


def words_of(model: bytes) -> list[str]:
    """A model that is one is a build of the worker's own."""
    if not model.startswith(b"\x08"):
        return model.decode().split()
    return [os.environ.get("FAKE_CHILD_PROBE", "build")]


def build(request: dict[str, Any], send: Any, rss_bytes: str = "1") -> None:
    Path(request["plan_path"]).write_bytes(b"plan")
    Path(request["io_path"]).write_bytes(b"{}")
    send(event="progress", stage="building", fraction=0.5)
    send(event="built", build_seconds=0.1, rss_bytes=int(rss_bytes))


def refuse(request: dict[str, Any], send: Any) -> None:
    send(event="failed", error={"code": "BUILD_FAILED", "message": "no"})


def lose_gpu(request: dict[str, Any], send: Any) -> None:
    send(event="failed", error={"code": "GPU_FAILED", "message": "GPU is lost"})


def die(request: dict[str, Any], send: Any, number: str = "SIGSEGV") -> None:
    os.kill(os.getpid(), signal.Signals[number])
    time.sleep(FOREVER)


def leave(request: dict[str, Any], send: Any) -> NoReturn:
    os._exit(1)


def hang(request: dict[str, Any], send: Any) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(FOREVER)


def family(request: dict[str, Any], send: Any) -> None:
    """It and what it has started ignore SIGTERM, and hang."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    pid = os.fork()
    if pid:
        Path(request["plan_path"]).write_text(str(pid))
    time.sleep(FOREVER)


def calculate(request: dict[str, Any], send: Any, seconds: str) -> None:
    """Silent, but at work."""
    end = time.monotonic() + float(seconds)
    while time.monotonic() < end:
        pass
    build(request, send)


def write(request: dict[str, Any], send: Any, seconds: str) -> None:
    """Asleep but for its log."""
    end = time.monotonic() + float(seconds)
    while time.monotonic() < end:
        time.sleep(0.1)
        with Path(request["log_path"]).open("a") as log:
            log.write("a line\n")
    build(request, send)


def spill(request: dict[str, Any], send: Any) -> None:
    """Prints far too much into its log."""
    with Path(request["log_path"]).open("a") as log:
        log.write("first\n" + "a line of many\n" * 100_000 + "last\n")
    build(request, send)


def orphan(request: dict[str, Any], send: Any) -> None:
    """Dies, but what it has started keeps the pipe open."""
    pid = os.fork()
    if pid == 0:
        time.sleep(FOREVER)
    Path(request["plan_path"]).write_text(str(pid))
    os._exit(3)


def garbage(request: dict[str, Any], send: Any) -> None:
    os.write(int(sys.argv[3]), b'\xff\x00{"event": "built"\n')
    time.sleep(FOREVER)


def endless(request: dict[str, Any], send: Any) -> None:
    """A message without an end."""
    while True:
        os.write(int(sys.argv[3]), b"x" * 65536)


def flood(request: dict[str, Any], send: Any) -> None:
    while True:
        send(event="progress", stage="layers", fraction=0.1)


def chatter(request: dict[str, Any], send: Any) -> None:
    """Prints what looks like a message, and more than a pipe holds."""
    print('{"event": "failed", "error": {"code": "NO", "message": "no"}}' * 10_000, flush=True)
    build(request, send)


def close(request: dict[str, Any], send: Any) -> None:
    """Closes the pipe, and does not end."""
    os.close(int(sys.argv[3]))
    time.sleep(FOREVER)


BEHAVIOURS: dict[str, Any] = {
    each.__name__: each
    for each in (
        build,
        refuse,
        lose_gpu,
        die,
        leave,
        hang,
        family,
        calculate,
        write,
        spill,
        orphan,
        garbage,
        endless,
        flood,
        chatter,
        close,
    )
}

if __name__ == "__main__":
    main()
