"""Uploads that nobody finishes, and what killed processes left in staging."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from trtfarm_api.maintenance.settings import MaintenanceSettings
from trtfarm_api.settings import ADMIN_KEY
from trtfarm_db.engine import Database
from trtfarm_db.repositories.uploads import UploadRepository

_log = logging.getLogger(__name__)


@dataclass
class Swept:
    uploads: int = 0
    size_bytes: int = 0


class UploadSweeper:
    """Of one staging folder. An upload is stale when nothing was written to it for ``upload_hours``."""

    def __init__(self, database: Database, staging: Path, settings: MaintenanceSettings) -> None:
        self._database = database
        self._staging = staging
        self._seconds = settings.upload_seconds
        self._kept_seconds = settings.upload_seconds + settings.grace_seconds

    def look(self) -> Swept:
        """What ``run`` would expire and remove now."""
        with self._database.transaction() as connection:
            unfinished = UploadRepository(connection).unfinished(self._seconds)
        stale = [upload_id for upload_id in unfinished if self._is_stale(upload_id)]
        files = [self._staging / each for each in [*stale, *self._litter()]]
        return Swept(len(stale), sum(path.stat().st_size for path in files if path.exists()))

    def run(self) -> Swept:
        """Raises DatabaseUnavailableError."""
        swept = Swept()
        with self._database.transaction() as connection:
            unfinished = UploadRepository(connection).unfinished(self._seconds)
        for upload_id in unfinished:
            with self._free(upload_id) as free:
                if not free or not self._is_stale(upload_id) or not self.expire(upload_id):
                    continue
                swept.uploads += 1
                swept.size_bytes += self._unlink(upload_id)
                _log.info("upload %s has expired", upload_id)
        swept.size_bytes += sum(map(self._unlink, self._litter()))
        with self._database.transaction() as connection:
            UploadRepository(connection).forget(self._kept_seconds)
        return swept

    def expire(self, upload_id: str) -> bool:
        """Whether it was open until now. From here on its caller is told."""
        with self._database.transaction() as connection:
            return UploadRepository(connection).expire(upload_id)

    def _litter(self) -> list[str]:
        """Old files of uploads that are complete, have expired, or are not known."""
        if not self._staging.is_dir():
            return []
        found = (path.name for path in self._staging.iterdir() if path.name != ADMIN_KEY)
        old = [name for name in found if self._is_stale(name)]
        with self._database.transaction() as connection:
            return sorted(set(old) - UploadRepository(connection).open_among(old))

    def _is_stale(self, name: str) -> bool:
        """Also one that no byte has arrived of."""
        try:
            return time.time() - (self._staging / name).stat().st_mtime >= self._seconds
        except FileNotFoundError:
            return True

    @contextlib.contextmanager
    def _free(self, name: str) -> Iterator[bool]:
        """Whether no request is writing to it; none begins to while the block runs."""
        try:
            descriptor = os.open(self._staging / name, os.O_RDWR | os.O_NOFOLLOW)
        except FileNotFoundError:
            yield True
            return
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield True
        except BlockingIOError:
            yield False
        finally:
            os.close(descriptor)

    def _unlink(self, name: str) -> int:
        path = self._staging / name
        try:
            size_bytes = path.stat().st_size
            path.unlink()
        except OSError:
            return 0  # another process was faster, or it is no file of ours
        return size_bytes
