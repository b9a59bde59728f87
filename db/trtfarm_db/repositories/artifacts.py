"""Blobs the store is known to hold, and the models and plans made of them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from functools import cache
from typing import Any, Self

from sqlalchemy import Connection, select, update

from trtfarm.contract.digest import Digest
from trtfarm.contract.leases import PublishedBlob
from trtfarm.contract.models import ModelInfo, ModelManifest
from trtfarm.contract.v1 import ModelView, PlanView
from trtfarm.errors import ConflictError, ModelNotFoundError, NotFoundError
from trtfarm_db.base import db_now, dialect_insert, let_rest
from trtfarm_db.models import Artifact, ArtifactState, Model, ModelFile, Plan
from trtfarm_db.repositories import views

_AT_ONCE = 500  # values of a statement; databases have limits
REMOVALS = 5  # how often a writer begins anew before it gives up


@cache
def _upsert(dialect: str) -> Any:
    insert = dialect_insert(dialect, Artifact)
    return insert.on_conflict_do_update(
        index_elements=[Artifact.digest],
        set_={
            "etag": insert.excluded.etag,
            "verified_at": db_now(),
            "touched_at": db_now(),
            "state": ArtifactState.READY.value,
        },
        where=Artifact.state == ArtifactState.READY.value,
    ).returning(Artifact.digest)


class ArtifactRemovedError(ConflictError):
    """An artifact was removed from the store while it was being published; publish it again."""

    @classmethod
    def of(cls, digests: Iterable[str]) -> Self:
        return cls(digests=sorted(digests))

    @property
    def digests(self) -> frozenset[Digest]:
        return frozenset(Digest(digest) for digest in self.details["digests"])


class ArtifactRepository:
    """Writers put a blob into the store first and ``add`` it then, in the transaction that refers to it.

    Should it have been removed from the store in between, ``add`` says so. Then ``hold`` it, put it once
    more, tell that it is ``restored``, all in one transaction, and begin anew. So one that is ready is in
    the store: nobody removes bytes without holding their row.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def add(self, blob: PublishedBlob, kind: str) -> None:
        """Records a blob that was just verified; known ones get the new etag.

        Raises:
            ArtifactRemovedError: it may have been removed since it was put.
        """
        self.add_all(**{kind: blob})

    def add_all(self, **blobs: PublishedBlob | None) -> None:
        """``add`` for those that are there, by kind."""
        rows = {
            str(blob.digest): {
                "digest": str(blob.digest),
                "kind": kind,
                "size_bytes": blob.size_bytes,
                "etag": blob.etag,
            }
            for kind, blob in blobs.items()
            if blob is not None
        }
        if not rows:
            return
        upsert = _upsert(self._connection.dialect.name)
        ordered = [rows[digest] for digest in sorted(rows)]  # all lock them in one order
        added = set(self._connection.execute(upsert, ordered).scalars())
        if removed := rows.keys() - added:
            raise ArtifactRemovedError.of(removed)

    def touch(self, digests: Collection[Digest]) -> None:
        """Keeps blobs that something is about to refer to, without putting them.

        Raises:
            ArtifactRemovedError: one is not, or no longer, there.
        """
        wanted = {str(digest) for digest in digests}
        ready = (Artifact.digest.in_(wanted), Artifact.state == ArtifactState.READY)
        locked = select(Artifact.digest).where(*ready).order_by(Artifact.digest).with_for_update()
        if missing := wanted - set(self._connection.execute(locked).scalars()):
            raise ArtifactRemovedError.of(missing)
        self._connection.execute(update(Artifact).where(*ready).values(touched_at=db_now()))

    def hold(self, digests: Collection[Digest]) -> None:
        """Until the transaction ends, nobody removes their bytes."""
        let_rest(self._connection)
        wanted = [str(digest) for digest in digests]
        self._connection.execute(
            select(Artifact.digest)
            .where(Artifact.digest.in_(wanted))
            .order_by(Artifact.digest)
            .with_for_update()
        )

    def restored(self, blob: PublishedBlob) -> None:
        """It is in the store again, put while it was held."""
        self._connection.execute(
            update(Artifact)
            .where(Artifact.digest == str(blob.digest))
            .values(
                state=ArtifactState.READY.value,
                etag=blob.etag,
                size_bytes=blob.size_bytes,
                touched_at=db_now(),
                verified_at=db_now(),
            )
        )

    def find(self, digest: Digest) -> PublishedBlob | None:
        row = self._connection.execute(
            select(Artifact).where(Artifact.digest == str(digest), Artifact.state == ArtifactState.READY)
        ).first()
        return row and PublishedBlob(digest=row.digest, size_bytes=row.size_bytes, etag=row.etag)

    def find_all(self, digests: Sequence[Digest]) -> dict[Digest, PublishedBlob]:
        """Those that are known."""
        found = {}
        for start in range(0, len(digests), _AT_ONCE):
            some = [str(digest) for digest in digests[start : start + _AT_ONCE]]
            for row in self._connection.execute(
                select(Artifact).where(Artifact.digest.in_(some), Artifact.state == ArtifactState.READY)
            ):
                found[Digest(row.digest)] = PublishedBlob(
                    digest=row.digest, size_bytes=row.size_bytes, etag=row.etag
                )
        return found

    def verified(self, digest: Digest, etag: str) -> None:
        """The blob was read whole and is right, as of this etag."""
        self._connection.execute(
            update(Artifact).where(Artifact.digest == str(digest)).values(etag=etag, verified_at=db_now())
        )

    def longest_unverified(self, older_than_seconds: float, limit: int) -> list[PublishedBlob]:
        """Those whose bytes were read longest ago, first."""
        rows = self._connection.execute(
            select(Artifact)
            .where(Artifact.state == ArtifactState.READY, Artifact.verified_at < db_now(-older_than_seconds))
            .order_by(Artifact.verified_at)
            .limit(limit)
        )
        return [PublishedBlob(digest=row.digest, size_bytes=row.size_bytes, etag=row.etag) for row in rows]

    def locked(self, blob: PublishedBlob) -> bool:
        """Whether the blob is still known as it was; then it stays so until the transaction ends."""
        row = self._connection.execute(
            select(Artifact.digest)
            .where(
                Artifact.digest == str(blob.digest),
                Artifact.etag == blob.etag,
                Artifact.state == ArtifactState.READY,
            )
            .with_for_update()
        ).first()
        return row is not None

    def remove(self, digest: Digest) -> None:
        """The blob is gone or corrupt: it is no longer handed out, and writers are warned."""
        self._connection.execute(
            update(Artifact)
            .where(Artifact.digest == str(digest))
            .values(state=ArtifactState.GONE.value, touched_at=db_now())
        )


class ModelRepository:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def add(self, manifest: ModelManifest, info: ModelInfo) -> None:
        """Its files must be artifacts, added or touched in the same transaction."""
        self._connection.execute(
            dialect_insert(self._connection.dialect.name, Model)
            .values(
                digest=str(manifest.digest),
                manifest=manifest.model_dump(mode="json"),
                info=info.model_dump(mode="json"),
            )
            .on_conflict_do_nothing(index_elements=[Model.digest])
        )
        files = sorted({manifest.onnx, *(file.digest for file in manifest.external_data)})
        self._connection.execute(
            dialect_insert(self._connection.dialect.name, ModelFile).on_conflict_do_nothing(),
            [{"model_digest": str(manifest.digest), "digest": str(digest)} for digest in files],
        )

    def get(self, digest: Digest) -> ModelView:
        """Raises ModelNotFoundError."""
        row = self._connection.execute(select(Model).where(Model.digest == str(digest))).first()
        if row is None:
            raise ModelNotFoundError(f"The farm does not have the model {digest}; upload it first.")
        manifest = ModelManifest.model_validate(row.manifest)
        info = ModelInfo.model_validate(row.info)
        return ModelView(
            digest=row.digest,
            size_bytes=manifest.size_bytes,
            opsets=info.opsets,
            ir_version=info.ir_version,
            node_count=info.node_count,
            inputs=info.inputs,
            outputs=info.outputs,
            external_data=manifest.external_data,
            created_at=row.created_at,
        )

    def manifest(self, digest: Digest) -> ModelManifest:
        """Raises ModelNotFoundError."""
        row = self._connection.execute(select(Model.manifest).where(Model.digest == str(digest))).first()
        if row is None:
            raise ModelNotFoundError
        return ModelManifest.model_validate(row.manifest)


class PlanRepository:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def get(self, digest: Digest) -> PlanView:
        """The newest build that gave these bytes. Raises NotFoundError."""
        row = self._connection.execute(
            select(Plan).where(Plan.digest == str(digest)).order_by(Plan.job_id.desc()).limit(1)
        ).first()
        if row is None:
            raise NotFoundError(f"There is no plan {digest}.")
        return views.plan_view(row)

    def page(
        self,
        *,
        model: str | None = None,
        gpus: Sequence[str] = (),
        runtime: str | None = None,
        before: str | None = None,
        limit: int = 50,
    ) -> list[PlanView]:
        """Newest first, older than the plan of job ``before``."""
        query = select(Plan).order_by(Plan.job_id.desc()).limit(limit)
        for column, value in (
            (Plan.model_digest, model),
            (Plan.runtime, runtime),
        ):
            if value:
                query = query.where(column == value)
        if gpus:
            query = query.where(Plan.gpu.in_(gpus))
        if before:
            query = query.where(Plan.job_id < before)
        return [views.plan_view(row) for row in self._connection.execute(query)]
