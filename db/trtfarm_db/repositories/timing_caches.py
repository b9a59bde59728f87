"""Revisions of timing caches."""

from __future__ import annotations

from sqlalchemy import Connection, func, select

from trtfarm.contract.device import Device
from trtfarm.contract.leases import PublishedBlob
from trtfarm.contract.timing_cache import TimingCacheHead, TimingCacheView
from trtfarm.errors import NotFoundError
from trtfarm_db.base import dialect_insert
from trtfarm_db.models import TimingCache
from trtfarm_db.repositories.artifacts import ArtifactRepository


class TimingCacheRepository:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def head(self, key: str) -> TimingCacheHead | None:
        row = self._connection.execute(
            select(TimingCache).where(TimingCache.key == key).order_by(TimingCache.revision.desc()).limit(1)
        ).first()
        return row and TimingCacheHead(
            key=row.key, revision=row.revision, digest=row.digest, size_bytes=row.size_bytes
        )

    def publish(
        self,
        *,
        key: str,
        after: int,
        blob: PublishedBlob,
        device: Device | None,
        runtime: str,
        gpu: str | None = None,
        entries: int | None,
        job_id: str | None,
        worker_id: str | None,
    ) -> int | None:
        """The new revision, one after ``after``; None if somebody published that one first."""
        added = self._connection.execute(
            dialect_insert(self._connection.dialect.name, TimingCache)
            .values(
                key=key,
                revision=after + 1,
                digest=str(blob.digest),
                size_bytes=blob.size_bytes,
                gpu=device.gpu if device else gpu,
                runtime=runtime,
                device=device.model_dump() if device else None,
                entries=entries,
                job_id=job_id,
                worker_id=worker_id,
            )
            .on_conflict_do_nothing(index_elements=[TimingCache.key, TimingCache.revision])
            .returning(TimingCache.revision)
        ).first()
        if added is None:
            return None
        ArtifactRepository(self._connection).add(blob, "timing_cache")
        return after + 1

    def heads(self) -> list[TimingCacheView]:
        """The newest revision of every cache, newest first."""
        newest = (
            select(TimingCache.key, func.max(TimingCache.revision).label("revision"))
            .group_by(TimingCache.key)
            .subquery()
        )
        rows = self._connection.execute(
            select(TimingCache)
            .join(newest, (TimingCache.key == newest.c.key) & (TimingCache.revision == newest.c.revision))
            .order_by(TimingCache.created_at.desc())
        )
        return [_view(row) for row in rows]

    def history(self, key: str) -> list[TimingCacheView]:
        """All revisions, newest first; ``key`` may be its first digits.

        Raises:
            NotFoundError: none, or several caches, start so.
        """
        rows = self._connection.execute(
            select(TimingCache)
            .where(TimingCache.key.startswith(key, autoescape=True))
            .order_by(TimingCache.revision.desc())
        ).all()
        if len({row.key for row in rows}) != 1:
            raise NotFoundError(f"{'Several' if rows else 'No'} timing caches start with {key}.")
        return [_view(row) for row in rows]

    def rollback(self, key: str, revision: int) -> TimingCacheView:
        """Publishes an older revision's content as the newest. Raises NotFoundError."""
        history = self.history(key)
        old = next((each for each in history if each.revision == revision), None)
        if old is None:
            raise NotFoundError(f"The timing cache {key} has no revision {revision}.")
        row = (
            self._connection.execute(
                select(TimingCache).where(TimingCache.key == old.key, TimingCache.revision == revision)
            )
            .mappings()
            .one()
        )
        values = {column: value for column, value in row.items() if column != "created_at"}
        values |= {"revision": history[0].revision + 1, "job_id": None, "worker_id": None}
        self._connection.execute(dialect_insert(self._connection.dialect.name, TimingCache).values(values))
        return self.history(old.key)[0]


def _view(row: object) -> TimingCacheView:
    names = ("key", "revision", "digest", "size_bytes", "gpu", "runtime", "entries", "job_id", "worker_id",
             "created_at")  # fmt: skip
    return TimingCacheView.model_validate({name: getattr(row, name) for name in names})
