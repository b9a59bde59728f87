"""What a folder needs beyond obstore: blobs that outlive a power cut, and no litter of killed writers."""

from __future__ import annotations

import os
import time
import uuid
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

_INCOMING = "incoming"


@dataclass(frozen=True, slots=True)
class DiskFolder:
    root: Path
    _lasting: set[Path] = field(default_factory=set)  # folders whose own names have been synced

    def staging_key(self) -> str:
        """Where to write before publishing. On the same file system, so that a rename publishes."""
        return f"{_INCOMING}/{uuid.uuid4().hex}"

    def publish(self, staging_key: str, key: str) -> None:
        """Moves written bytes under their name, atomically and durably.

        obstore renames without fsync. Syncing the bytes *before* the rename matters where the name exists:
        an older copy, which the database already knows, is then never replaced by bytes a power cut may lose.
        """
        staged, final = self.root / staging_key, self.root / key
        try:
            _fsync(staged)
            final.parent.mkdir(parents=True, exist_ok=True)
            staged.replace(final)
        except BaseException:
            staged.unlink(missing_ok=True)
            raise
        folders = [self.root / folder for folder in final.relative_to(self.root).parents]
        _fsync(folders[0])
        for folder, above in pairwise(folders):
            if folder not in self._lasting:
                _fsync(above)
                self._lasting.add(folder)

    def sweep(self, older_than_seconds: float) -> int:
        """Removes what killed writers left. Returns the bytes freed."""
        freed_bytes = 0
        for path in (self.root / _INCOMING).glob("*"):
            try:
                status = path.stat()
                if time.time() - status.st_mtime > older_than_seconds:
                    path.unlink()
                    freed_bytes += status.st_size
            except FileNotFoundError:
                continue  # its writer has just published it
        return freed_bytes


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
