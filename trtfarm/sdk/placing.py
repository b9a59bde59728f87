"""Replacing a file by another one at once, and only by the right one."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from trtfarm.contract.digest import CHUNK_BYTES, Digest
from trtfarm.errors import BlobCorruptError


def place(source: Path, digest: Digest, destination: Path) -> bool:
    """Copies ``source`` and hashes it on the way; False if the right bytes lay there already.

    Whoever reads ``destination`` sees the old file or the new one, whole and verified; also after a crash.

    Raises:
        BlobCorruptError: ``source`` has other bytes.
    """
    if _is(destination, digest, source.stat().st_size):
        return False
    destination.parent.mkdir(parents=True, exist_ok=True)
    with source.open("rb") as file, owned(destination.with_name(f".{destination.name}.new")) as new:
        path, into = new
        into.truncate(0)
        sha = hashlib.sha256()
        while chunk := file.read(CHUNK_BYTES):
            sha.update(chunk)
            into.write(chunk)
        into.flush()
        os.fsync(into.fileno())
        if sha.hexdigest() != digest.hex:
            path.unlink()
            raise BlobCorruptError(
                f"The copy of {digest} in {source.parent} is damaged.", hint="It was dropped; pull it again."
            )
        with contextlib.suppress(FileNotFoundError):
            shutil.copymode(destination, path)
        path.replace(destination)
        sync_folder(destination.parent)
    return True


@contextlib.contextmanager
def owned(path: Path) -> Iterator[tuple[Path, BinaryIO]]:
    """A file beside another one that one process writes at a time; what a killed one left is taken over.

    The lock is the file's own, and the name may have moved on while one waited for it.
    """
    while True:
        with path.open("ab+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if same_file(path, file):
                yield path, file
                return


def same_file(path: Path, file: BinaryIO) -> bool:
    """Whether the open file is still the one of that name."""
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


def sync_folder(folder: Path) -> None:
    """A rename outlives a power cut only when its folder is synced."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _is(path: Path, digest: Digest, size: int) -> bool:
    try:
        with path.open("rb") as file:
            return os.fstat(file.fileno()).st_size == size and Digest.of_file(file) == digest
    except FileNotFoundError:
        return False
