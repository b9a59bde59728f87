"""Replacing a file by another one at once, and only by the right one."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from trtfarm.contract.digest import CHUNK_BYTES, Digest
from trtfarm.errors import BlobCorruptError
from trtfarm.files import owned, publish, target_of


def place(source: Path, digest: Digest, destination: Path) -> bool:
    """Copies ``source`` and hashes it on the way; False if the right bytes lay there already.

    Whoever reads ``destination`` sees the old file or the new one, whole and verified; also after a crash.

    Raises:
        BlobCorruptError: ``source`` has other bytes.
        LocalFileError: ``destination`` is no regular file.
    """
    target = target_of(destination)
    if _is(target, digest, source.stat().st_size):
        return False
    target.parent.mkdir(parents=True, exist_ok=True)
    with source.open("rb") as file, owned(target.with_name(f".{target.name}.new")) as (new, into):
        into.truncate(0)
        sha = hashlib.sha256()
        while chunk := file.read(CHUNK_BYTES):
            sha.update(chunk)
            _write(into.fileno(), chunk)
        if sha.hexdigest() != digest.hex:
            new.unlink()
            raise BlobCorruptError(
                f"The copy of {digest} in {source.parent} is damaged.", hint="It was dropped; pull it again."
            )
        publish(new, into, target)
    return True


def _write(descriptor: int, data: bytes) -> None:
    """All of it: an unbuffered write may take less."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _is(path: Path, digest: Digest, size: int) -> bool:
    try:
        with path.open("rb") as file:
            return os.fstat(file.fileno()).st_size == size and Digest.of_file(file) == digest
    except FileNotFoundError:
        return False
