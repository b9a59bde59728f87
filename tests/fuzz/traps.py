"""Whether a model has got out of its box: files that nobody may touch, processes that nobody may leave."""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterator
from pathlib import Path

_PR_SET_CHILD_SUBREAPER = 36
_libc = ctypes.CDLL(None)


def adopt_orphans() -> None:
    """What a child's children leave behind becomes this process's own child, where it can be seen."""
    _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def children(pid: int) -> list[int]:
    found: list[int] = []
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            found += map(int, (task / "children").read_text().split())
    return found


def command_of(pid: int) -> str:
    """Empty for a process that has ended and is not waited for."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def sockets(pid: int) -> int:
    """How many a process has open; 0 if it has ended."""
    count = 0
    with contextlib.suppress(OSError):
        for link in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                count += str(link.readlink()).startswith("socket:")
    return count


class Canaries:
    """Folders in which everything stays as it is."""

    def __init__(self, *folders: Path) -> None:
        self._folders = folders
        for number, folder in enumerate(folders):
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "secret").write_text(f"secret {number}")
            (folder / "model.onnx").write_bytes(b"\x08\x08")
        self._before = dict(self._state())

    def changed(self) -> list[str]:
        """Names of files that are new, gone or different; told once."""
        now = dict(self._state())
        before, self._before = self._before, now
        return sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))

    def _state(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        for folder in self._folders:
            for entry in os.scandir(folder):
                status = entry.stat(follow_symlinks=False)
                yield entry.path, (status.st_mode, status.st_ino, status.st_size, status.st_mtime_ns)
