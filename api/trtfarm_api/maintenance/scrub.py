"""Reading stored artifacts again: what has rotted is found before somebody asks for it.

An etag only tells that nobody has written a blob; a disk that forgets keeps it. So every byte is hashed.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from trtfarm.contract.leases import PublishedBlob
from trtfarm.errors import BlobMissingError
from trtfarm.store import ArtifactStore
from trtfarm_api.blobs import Blobs
from trtfarm_api.maintenance.settings import MaintenanceSettings
from trtfarm_api.metrics import Metrics
from trtfarm_db.engine import Database
from trtfarm_db.repositories.artifacts import ArtifactRepository

_log = logging.getLogger(__name__)
_BATCH = 100


@dataclass
class Scrubbed:
    """``lost``: digests of those that were corrupt or missing; they are out of service now."""

    artifacts: int
    size_bytes: int
    lost: list[str]


class _StoppedError(Exception):
    """It is time to end, in the middle of a blob."""


class Scrubber:
    def __init__(
        self,
        database: Database,
        store: ArtifactStore,
        blobs: Blobs,
        metrics: Metrics,
        settings: MaintenanceSettings,
    ) -> None:
        self._database = database
        self._store = store
        self._blobs = blobs
        self._metrics = metrics
        self._settings = settings

    def run(self, older_than_seconds: float, stop: threading.Event, seconds: float = 1e9) -> Scrubbed:
        """Scrubs what was verified before that, oldest first; until all is done, or time is up.

        Raises:
            UnavailableError, ConfigurationError: the store or the database is away; nothing is judged then.
        """
        done = Scrubbed(0, 0, [])
        began_at = time.monotonic()
        pace = _Pace(
            self._settings.scrub_bytes_per_second,
            stop,
            began_at + seconds,
            self._metrics.maintenance.scrubbed_bytes.inc,
        )
        self._store.check()  # without its folder or bucket, every blob would only look missing
        while True:
            age = older_than_seconds + time.monotonic() - began_at  # not those of this run once more
            with self._database.transaction() as connection:
                batch = ArtifactRepository(connection).longest_unverified(age, _BATCH)
            for blob in batch:
                try:
                    if not self.scrub(blob, pace):
                        done.lost.append(str(blob.digest))
                except _StoppedError:
                    return done
                done.artifacts += 1
                done.size_bytes += blob.size_bytes
            if not batch:
                return done

    def scrub(self, blob: PublishedBlob, pace: _Pace) -> bool:
        """Whether the stored bytes are right. If not, they are out of service now."""
        try:
            found = self._store.stat(blob.digest)
            right = (
                found is not None
                and found.size_bytes == blob.size_bytes
                and self._store.verify(blob.digest, pace)
            )
        except BlobMissingError:
            found, right = None, False
        with self._database.transaction() as connection:
            artifacts = ArtifactRepository(connection)
            if not artifacts.locked(blob):
                return True  # published anew, or collected, while it was read
            if right and found:
                artifacts.verified(blob.digest, found.etag)
                return True
        return not self._blobs.take_out(blob)


class _Pace:
    """Called with the number of bytes read; sleeps so that they are not more than so many a second."""

    def __init__(
        self, bytes_per_second: int, stop: threading.Event, until: float, counted: Callable[[float], object]
    ) -> None:
        self._counted = counted
        self._bytes_per_second = bytes_per_second
        self._stop = stop
        self._until = until
        self._due = time.monotonic()

    def __call__(self, size_bytes: int) -> None:
        self._counted(size_bytes)
        now = time.monotonic()
        self._due = max(self._due, now - 1) + size_bytes / self._bytes_per_second
        if self._stop.wait(max(0.0, min(self._due, self._until) - now)) or time.monotonic() >= self._until:
            raise _StoppedError
