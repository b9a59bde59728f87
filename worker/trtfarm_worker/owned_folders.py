"""Folders that belong to one process each: the kernel drops its lock with it, however it ends."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Collection, Iterator
from pathlib import Path


class OwnedFolders:
    """The folders inside one parent, which is made on demand; one without an owner is litter, or work."""

    def __init__(self, parent: Path) -> None:
        self.parent = parent

    def make(self, name: str) -> int:
        """Makes a folder, or takes one that nobody owns; its lock, to be closed, is what owns it.

        Raises:
            BlockingIOError: it belongs to another process.
            OSError: it cannot be made.
        """
        with self._guard():
            path = self.parent / name
            path.mkdir(exist_ok=True, mode=0o700)
            lock = _lock(path)
        if lock is None:
            raise BlockingIOError(f"{path} belongs to another process.")
        return lock

    def abandoned(self, but: Collection[str] = ()) -> list[tuple[Path, int]]:
        """The folders that nobody owned until now, with their locks; ``but``: names to leave alone.

        Raises:
            OSError: the parent cannot be used.
        """
        found = []
        with self._guard():
            folders = (each for each in self.parent.iterdir() if each.name not in but and each.is_dir())
            for path in sorted(folders):
                lock = _lock(path)
                if lock is not None:
                    found.append((path, lock))
        return found

    @contextlib.contextmanager
    def _guard(self) -> Iterator[None]:
        """Between making a folder and locking it, it must not look abandoned."""
        for folder in (self.parent.parent, self.parent):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(self.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def _lock(path: Path) -> int | None:
    """None: another process, or thread, owns it, or it is gone."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if path.exists():  # an owner removes the folder before it drops the lock
            return descriptor
    except BlockingIOError:
        pass
    os.close(descriptor)
    return None
