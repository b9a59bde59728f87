"""Processes that a child had started, and that outlived their worker: they would keep its GPU locked.

The kernel ends a child with its worker, but not what the child itself has started. All of it inherits a
variable that names the worker, so whoever starts on this host next can tell and end them.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import time
from pathlib import Path

MARK = "TRTFARM_CHILD_OF"
_PROC = Path("/proc")
_GONE_SECONDS = 5.0
_log = logging.getLogger(__name__)


def mark() -> dict[str, str]:
    """For the environment of a child: this process, as no other one is called while this host runs."""
    return {MARK: f"{_namespace()}.{os.getpid()}.{_started(os.getpid())}"}


def end_orphans() -> int:
    """Kills what children of dead workers have left running; returns how many processes that were."""
    ended = []
    for folder in _PROC.glob("[0-9]*"):
        here, worker, started = _worker_of(folder)
        # A container's processes may be seen from outside, where its process ids mean others.
        if here != _namespace() or _started(int(worker)) == started:
            continue
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(int(folder.name), signal.SIGKILL)
            _log.warning("process %s outlived its worker and was killed", folder.name)
            ended.append(int(folder.name))
    end = time.monotonic() + _GONE_SECONDS
    while any(map(_started, ended)) and time.monotonic() < end:
        time.sleep(0.01)
    return len(ended)


def _worker_of(folder: Path) -> tuple[str, str, str]:
    """(namespace, process id, beginning); of what is no child's, or not ours to look at, nothing."""
    try:
        variables = (folder / "environ").read_bytes().split(b"\0")
    except OSError:
        return "", "", ""
    for each in variables:
        name, _, value = each.partition(b"=")
        parts = value.decode(errors="replace").split(".")
        if name.decode(errors="replace") == MARK and len(parts) == 3 and parts[1].isdecimal():
            return parts[0], parts[1], parts[2]
    return "", "", ""


def _namespace() -> str:
    return str((_PROC / "self/ns/pid").stat().st_ino)


def _started(pid: int) -> str:
    """When a process began, in ticks since the host did; empty if it has ended."""
    try:
        text = (_PROC / str(pid) / "stat").read_text()
    except OSError:
        return ""
    state, *rest = text.rpartition(")")[2].split()
    return "" if state in {"Z", "X"} else rest[18]
