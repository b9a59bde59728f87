"""When a child does nothing any more: no message, no line in its log, hardly any CPU time.

TensorRT 8.6 tells no progress, and a build may be silent for an hour while it tries tactics. It works then,
and so does a process that waits for its GPU: CUDA spins. What stands still is a deadlock.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

_CPU_SHARE = 0.01  # of one core, over the whole time: threads that only tick do less
_LOOKS = 20  # in that time
_LOOK_SECONDS = 1.0  # at least that often


class Stall:
    """``seconds``: how long a child may do nothing. ``cpu_seconds``: what it has used so far."""

    def __init__(self, seconds: float, log_path: Path, cpu_seconds: Callable[[], float]) -> None:
        self._seconds = seconds
        self._log_path = log_path
        self._cpu_seconds = cpu_seconds
        self._interval = min(_LOOK_SECONDS, seconds / _LOOKS)
        self._looked_at = time.monotonic()
        self._log_bytes = 0
        self._since, self._cpu = self._looked_at, cpu_seconds()

    def heard(self) -> None:
        """A message came."""
        self._since, self._cpu = time.monotonic(), self._cpu_seconds()

    def __call__(self) -> bool:
        """Whether it has stood still for too long. Cheap: looks now and then only."""
        now = time.monotonic()
        if now - self._looked_at < self._interval:
            return False
        self._looked_at = now
        log_bytes, cpu = self._log_size(), self._cpu_seconds()
        # A smaller sum is that of a new process.
        if log_bytes != self._log_bytes or not 0 <= cpu - self._cpu < _CPU_SHARE * self._seconds:
            self._log_bytes, self._since, self._cpu = log_bytes, now, cpu
        return now - self._since > self._seconds

    def _log_size(self) -> int:
        try:
            return self._log_path.stat().st_size
        except FileNotFoundError:
            return 0


def cpu_seconds(pid: int) -> float:
    """User and system time of a process and of all that it has started; 0 if it is gone."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        lists = [path.read_text(encoding="ascii") for path in Path(f"/proc/{pid}/task").glob("*/children")]
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    fields = status.rpartition(")")[2].split()  # the name before it may hold anything
    own = sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
    return own + sum(cpu_seconds(int(child)) for each in lists for child in each.split())
