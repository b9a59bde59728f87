"""A verified copy of a blob in a file."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from trtfarm.errors import StorageFullError
from trtfarm.store.failures import is_full

if TYPE_CHECKING:
    from obstore import Bytes

_MODE = 0o644


def replace_file(destination: Path, buffers: Iterable[Bytes]) -> None:
    """Writes beside the destination, then renames: whatever is raised, no partial file has its name.

    Not synced: a copy lost in a power cut can be fetched again.

    Raises:
        StorageFullError: no space for the copy.
        OSError: the folder is missing or not writable.

    """
    descriptor, name = tempfile.mkstemp(dir=destination.parent, prefix=".trtfarm-")
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb", buffering=0) as file:
            for buffer in buffers:
                _write(file.fileno(), memoryview(buffer))
            os.fchmod(file.fileno(), _MODE)
        temporary.replace(destination)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        if is_full(error):
            raise StorageFullError(f"There is no space left for {destination}.") from error
        raise
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _write(descriptor: int, view: memoryview) -> None:
    """All of it: a raw write may take less, as it does just before the disk is full."""
    while view:
        view = view[os.write(descriptor, view) :]
