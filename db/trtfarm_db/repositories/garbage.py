"""What nothing refers to any more: found, marked, and forgotten once its bytes are gone.

Marking and removing are safe at any time, whatever others do at the same moment, because

* who makes something refer to a blob updates the blob's row in the same transaction (``add``, ``touch``);
* ``mark`` holds that row while it looks for references, so it sees them, or they see the mark;
* bytes are removed only while their marked row is held, and the row stays as a warning to those who had put
  the same bytes before and add them later.

The grace spares work; nothing but that depends on it. Only the warning must outlive every writer: see
``forget``.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Select, delete, except_, select, union_all, update
from sqlalchemy.orm import InstrumentedAttribute
from sqlalchemy.sql.expression import CompoundSelect

from trtfarm.contract.digest import Digest
from trtfarm_db.base import db_now, dialect_insert, let_rest
from trtfarm_db.models import (
    Artifact,
    ArtifactState,
    Attempt,
    Benchmark,
    JobInput,
    ModelFile,
    Plan,
    TimingCache,
    Upload,
)

_AT_ONCE = 500  # values of a statement; databases have limits
_REFERENCES = (
    ModelFile.digest,
    JobInput.digest,
    Plan.digest,
    Plan.io_digest,
    Benchmark.plan_digest,
    Benchmark.times_digest,
    Benchmark.layer_profile_digest,
    Benchmark.layer_information_digest,
    TimingCache.digest,
)
_LOGS = (
    (Plan.log_digest, Plan.created_at),
    (Attempt.log_digest, Attempt.ended_at),
    (Benchmark.log_digest, Benchmark.created_at),
)


class GarbageRepository:
    """``log_seconds``: after that long, what has ended no longer counts as referring to its log."""

    def __init__(self, connection: Connection, log_seconds: float | None = None) -> None:
        self._connection = connection
        self._log_seconds = log_seconds

    def unreferenced(self, grace_seconds: float, limit: int) -> dict[Digest, int]:
        """Size in bytes of artifacts that nothing refers to and nobody has touched for so long."""
        old = select(Artifact.digest).where(
            Artifact.state == ArtifactState.READY,
            Artifact.touched_at < db_now(-grace_seconds),
        )
        named = self._references().subquery()  # SQLite knows no parentheses here
        loose = except_(old, select(named.c[0])).limit(limit)
        found = list(self._connection.execute(loose).scalars())
        loose_digests = sorted(set(found) - self._uploading())
        sizes: dict[Digest, int] = {}
        for start in range(0, len(loose_digests), _AT_ONCE):
            some = loose_digests[start : start + _AT_ONCE]
            rows = self._connection.execute(
                select(Artifact.digest, Artifact.size_bytes).where(Artifact.digest.in_(some))
            )
            sizes |= {Digest(row.digest): row.size_bytes for row in rows}
        return sizes

    def mark(self, digests: Collection[Digest], grace_seconds: float) -> list[Digest]:
        """Takes those out of service that still are old and that nothing refers to."""
        held = list(
            self._connection.execute(
                select(Artifact.digest)
                .where(
                    Artifact.digest.in_([str(digest) for digest in digests]),
                    Artifact.state == ArtifactState.READY,
                    Artifact.touched_at < db_now(-grace_seconds),
                )
                .with_for_update(skip_locked=True)
            ).scalars()
        )
        # A statement of its own: it sees what was committed before the rows were held.
        free = set(held) - self.referenced(held)
        self._connection.execute(
            update(Artifact).where(Artifact.digest.in_(free)).values(state=ArtifactState.DELETING.value)
        )
        return [Digest(digest) for digest in sorted(free)]

    def referenced(self, digests: Collection[str]) -> set[str]:
        """Those of them that something refers to."""
        wanted = {str(digest) for digest in digests}
        found = set(self._connection.execute(self._references(wanted)).scalars())
        return found | (self._uploading() & wanted)

    def marked(self, limit: int, after: Digest | None = None) -> list[Digest]:
        rows = self._connection.execute(
            select(Artifact.digest)
            .where(Artifact.state == ArtifactState.DELETING, Artifact.digest > str(after or ""))
            .order_by(Artifact.digest)
            .limit(limit)
        )
        return [Digest(row.digest) for row in rows]

    def hold(self, digest: Digest) -> int | None:
        """The size of a marked artifact, whose bytes may be removed until the transaction ends.

        None: it was restored, or another holds it.
        """
        let_rest(self._connection)
        return self._connection.execute(
            select(Artifact.size_bytes)
            .where(Artifact.digest == str(digest), Artifact.state == ArtifactState.DELETING)
            .with_for_update(skip_locked=True)
        ).scalar_one_or_none()

    def removed(self, digest: Digest) -> None:
        """Its bytes are gone. The row stays, for writers that have put them before."""
        self._connection.execute(
            update(Artifact)
            .where(Artifact.digest == str(digest))
            .values(state=ArtifactState.GONE.value, touched_at=db_now())
        )

    def forget(self, gone_for_seconds: float) -> int:
        """Drops rows of artifacts that are gone for so long; returns how many.

        No writer may need as long from putting a blob to committing it.
        """
        return self._connection.execute(
            delete(Artifact).where(
                Artifact.state == ArtifactState.GONE, Artifact.touched_at < db_now(-gone_for_seconds)
            )
        ).rowcount

    # --- blobs of the store without a row ---

    def unknown(self, digests: Collection[Digest]) -> set[Digest]:
        """Those that are there for the store and not for the database."""
        wanted = {str(digest) for digest in digests}
        known = select(Artifact.digest).where(
            Artifact.digest.in_(wanted), Artifact.state != ArtifactState.GONE
        )
        return {Digest(each) for each in wanted - set(self._connection.execute(known).scalars())}

    def hold_unknown(self, digest: Digest) -> bool:
        """Until the transaction ends, nobody adds or removes this blob; False if somebody just did."""
        let_rest(self._connection)
        self._connection.execute(
            dialect_insert(self._connection.dialect.name, Artifact)
            .values(digest=str(digest), kind="unknown", size_bytes=0, etag="", state=ArtifactState.GONE.value)
            .on_conflict_do_nothing(index_elements=[Artifact.digest])
        )
        held = self._connection.execute(
            select(Artifact.digest)
            .where(Artifact.digest == str(digest), Artifact.state == ArtifactState.GONE)
            .with_for_update(skip_locked=True)
        )
        return held.first() is not None

    def adopt(self, digest: Digest, size_bytes: int, written_at: datetime) -> None:
        """A held blob that the store has; as old as its bytes, and verified when it is first used: no etag
        is empty.
        """
        self._connection.execute(
            update(Artifact)
            .where(Artifact.digest == str(digest))
            .values(
                state=ArtifactState.READY.value,
                size_bytes=size_bytes,
                etag="",
                touched_at=written_at,
                verified_at=written_at,
            )
        )

    def _uploading(self) -> set[str]:
        """External data that open uploads of models have announced."""
        rows = self._connection.execute(
            select(Upload.external_data).where(Upload.completed_at.is_(None), Upload.expired_at.is_(None))
        )
        return {file["digest"] for row in rows for file in row.external_data}

    def _references(self, digests: Collection[str] | None = None) -> CompoundSelect[str]:
        """Everything that names an artifact; of the given ones only, if there are."""
        names = [_naming(column, digests) for column in _REFERENCES]
        for column, at in _LOGS:
            name = _naming(column, digests)
            names.append(name if self._log_seconds is None else name.where(at > db_now(-self._log_seconds)))
        return union_all(*names)


def _naming(column: InstrumentedAttribute[Any], digests: Collection[str] | None) -> Select[tuple[str]]:
    query = select(column).where(column.is_not(None))
    return query if digests is None else query.where(column.in_(digests))
