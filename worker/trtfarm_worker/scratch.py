"""Where a worker's attempts write their plans and logs."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def attempts_folder(scratch: Path, worker_id: str) -> Iterator[Path]:
    """A folder of this worker's own, removed at the end; those of killed workers are removed at once.

    Workers may share ``scratch``. Each holds a lock on its folder, which the kernel drops when it dies.
    """
    root = scratch / "attempts"
    root.mkdir(parents=True, exist_ok=True)
    fresh = root / f".{worker_id}"  # not swept: it has no lock yet
    fresh.mkdir()
    with _locked(fresh):
        folder = fresh.rename(root / worker_id)
        for other in root.glob("[!.]*"):
            _remove_if_abandoned(other)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def _remove_if_abandoned(folder: Path) -> None:
    # Locked: in use. Gone: another worker has swept it.
    with contextlib.suppress(BlockingIOError, FileNotFoundError, NotADirectoryError), _locked(folder):
        shutil.rmtree(folder, ignore_errors=True)
