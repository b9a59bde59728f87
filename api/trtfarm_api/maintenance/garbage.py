"""Garbage collection: artifacts that nothing refers to, and blobs that the database does not know.

Mark, remove the bytes, forget: each step a transaction, each harmless to repeat or to do twice at once. See
``trtfarm_db.repositories.garbage`` for why no blob goes that gains a reference meanwhile.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice

from trtfarm.contract.digest import Digest
from trtfarm.failpoints import reach
from trtfarm.store import ArtifactStore, ListedBlob
from trtfarm_api.maintenance.settings import MaintenanceSettings
from trtfarm_db.engine import Database
from trtfarm_db.repositories.garbage import GarbageRepository

_log = logging.getLogger(__name__)
_BATCH = 500
_WARNED_SECONDS = 86400.0  # between a writer's put and its commit there is less than that


@dataclass
class Garbage:
    """What a run removed, or would remove.

    ``unknown``: blobs that the database did not know; those that nothing refers to are among the rest.
    """

    artifacts: int = 0
    size_bytes: int = 0
    unknown: int = 0
    temporary_bytes: int = 0


class GarbageCollector:
    def __init__(self, database: Database, store: ArtifactStore, settings: MaintenanceSettings) -> None:
        self._database = database
        self._store = store
        self._grace_seconds = settings.grace_seconds
        self._log_seconds = settings.log_seconds
        self._temporary_seconds = settings.upload_seconds

    def look(self) -> Garbage:
        """What ``run`` would remove now. Changes nothing."""
        garbage = Garbage()
        for batch in self._unknown():
            with self._garbage() as repository:
                kept = repository.referenced([blob.digest for blob in batch])
            garbage.unknown += len(batch)
            loose = [blob for blob in batch if blob.digest not in kept]
            garbage.artifacts += len(loose)
            garbage.size_bytes += sum(blob.size_bytes for blob in loose)
        with self._garbage() as repository:
            found = repository.unreferenced(self._grace_seconds, limit=1_000_000)
        garbage.artifacts += len(found)
        garbage.size_bytes += sum(found.values())
        return garbage

    def run(self) -> Garbage:
        """Raises UnavailableError: a later run goes on where this one ended."""
        garbage = Garbage(unknown=self.adopt())
        while self.mark():
            pass
        for digest in self.marked():
            freed_bytes = self.remove(digest)
            if freed_bytes is not None:
                garbage.artifacts += 1
                garbage.size_bytes += freed_bytes
        with self._garbage() as repository:
            repository.forget(_WARNED_SECONDS)
        garbage.temporary_bytes = self._store.sweep(self._temporary_seconds)
        return garbage

    def adopt(self) -> int:
        """Gives blobs without a row one: they then go the way of all others. Returns how many there were."""
        count = 0
        for batch in self._unknown():
            for blob in batch:
                with self._garbage() as repository:
                    if repository.hold_unknown(blob.digest) and self._store.stat(blob.digest):
                        repository.adopt(blob.digest, blob.size_bytes, blob.written_at)
                        reach("gc.before_adopt_commit")
                        count += 1
        return count

    def mark(self) -> int:
        """From here on they are not handed out. Returns how many were marked."""
        with self._garbage() as repository:
            found = repository.unreferenced(self._grace_seconds, limit=_BATCH)
            marked = len(repository.mark(found, self._grace_seconds)) if found else 0
            if marked:
                reach("gc.before_mark_commit")
        if marked:
            reach("gc.after_mark")
        return marked

    def marked(self) -> Iterator[Digest]:
        """Also those that another run has left."""
        last = None
        while True:
            with self._garbage() as repository:
                batch = repository.marked(_BATCH, after=last)
            if not batch:
                return
            yield from batch
            last = batch[-1]

    def remove(self, digest: Digest) -> int | None:
        """The bytes, while the row is held. Returns how many; None if somebody needs them after all."""
        with self._garbage() as repository:
            size_bytes = repository.hold(digest)
            if size_bytes is None:
                return None
            self._store.delete(digest)
            reach("gc.after_unlink")
            repository.removed(digest)
        reach("gc.after_remove")
        _log.info("artifact %s: nothing referred to it; %d bytes freed", digest, size_bytes)
        return size_bytes

    @contextlib.contextmanager
    def _garbage(self) -> Iterator[GarbageRepository]:
        """In a transaction that ends with the block."""
        with self._database.transaction() as connection:
            yield GarbageRepository(connection, self._log_seconds)

    def _unknown(self) -> Iterator[list[ListedBlob]]:
        """In batches: blobs older than the grace that the database does not know."""
        before = datetime.now(UTC) - timedelta(seconds=self._grace_seconds)
        old = (blob for blob in self._store.blobs() if blob.written_at < before)
        while batch := list(islice(old, _BATCH)):
            with self._garbage() as repository:
                unknown = repository.unknown([blob.digest for blob in batch])
            if unknown:
                yield [blob for blob in batch if blob.digest in unknown]
