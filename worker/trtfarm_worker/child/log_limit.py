"""Keeps a job's log at a size that a disk, the store and a reader can bear.

TensorRT's own messages are limited where they are written; what its compilers print, or a plugin, is not.
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

_LOOK_SECONDS = 1.0
_GAP = b"\n[... the middle of this log was dropped: it was too long ...]\n"


class LogLimit:
    """A log of more than ``limit_bytes`` keeps its first half and its last quarter of that.

    The child appends to the file meanwhile; lines that it writes in that very moment may be lost.
    """

    def __init__(self, path: Path, limit_bytes: int) -> None:
        self._path = path
        self._limit_bytes = limit_bytes
        self._looked_at = time.monotonic()

    def look(self) -> None:
        """Cheap: looks now and then only."""
        now = time.monotonic()
        if now - self._looked_at >= _LOOK_SECONDS:
            self._looked_at = now
            self.apply()

    def apply(self) -> None:
        """A log that cannot be cut, or is not there, stays as it is."""
        with contextlib.suppress(OSError):
            if self._path.stat().st_size > self._limit_bytes:
                self._cut()

    def _cut(self) -> None:
        with self._path.open("r+b") as file:
            file.seek(-(self._limit_bytes // 4), os.SEEK_END)
            tail = file.read(self._limit_bytes // 4)
            file.truncate(self._limit_bytes // 2)
        with self._path.open("ab") as file:
            file.write(_GAP + tail)
