"""Blobs the store is known to hold, and the models and plans made of them."""

from __future__ import annotations

from functools import cache
from typing import Any

from sqlalchemy import Connection, delete, select, update

from trtfarm.contract.digest import Digest
from trtfarm.contract.leases import PublishedBlob
from trtfarm.contract.models import ModelInfo, ModelManifest
from trtfarm.contract.v1 import ModelView, PlanView
from trtfarm.errors import ModelNotFoundError, NotFoundError
from trtfarm_db.base import db_now, dialect_insert
from trtfarm_db.models import Artifact, Model, Plan
from trtfarm_db.repositories import views


@cache
def _upsert(dialect: str) -> Any:
    insert = dialect_insert(dialect, Artifact)
    return insert.on_conflict_do_update(
        index_elements=[Artifact.digest], set_={"etag": insert.excluded.etag, "verified_at": db_now()}
    )


class ArtifactRepository:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def add(self, blob: PublishedBlob, kind: str) -> None:
        """Records a blob that was just verified; known ones get the new etag."""
        self.add_all(**{kind: blob})

    def add_all(self, **blobs: PublishedBlob | None) -> None:
        """``add`` for those that are there, by kind."""
        rows: list[dict[str, Any]] = [
            {"digest": str(blob.digest), "kind": kind, "size_bytes": blob.size_bytes, "etag": blob.etag}
            for kind, blob in blobs.items()
            if blob is not None
        ]
        if rows:
            rows.sort(key=lambda row: row["digest"])  # all lock them in one order
            self._connection.execute(_upsert(self._connection.dialect.name), rows)

    def find(self, digest: Digest) -> PublishedBlob | None:
        row = self._connection.execute(select(Artifact).where(Artifact.digest == str(digest))).first()
        return row and PublishedBlob(digest=row.digest, size_bytes=row.size_bytes, etag=row.etag)

    def verified(self, digest: Digest, etag: str) -> None:
        """The blob was read whole and is right, as of this etag."""
        self._connection.execute(
            update(Artifact).where(Artifact.digest == str(digest)).values(etag=etag, verified_at=db_now())
        )

    def remove(self, digest: Digest) -> None:
        """The blob is gone or corrupt."""
        self._connection.execute(delete(Artifact).where(Artifact.digest == str(digest)))


class ModelRepository:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def add(self, manifest: ModelManifest, info: ModelInfo) -> None:
        self._connection.execute(
            dialect_insert(self._connection.dialect.name, Model)
            .values(
                digest=str(manifest.digest),
                manifest=manifest.model_dump(mode="json"),
                info=info.model_dump(mode="json"),
            )
            .on_conflict_do_nothing(index_elements=[Model.digest])
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
        gpu: str | None = None,
        runtime: str | None = None,
        before: str | None = None,
        limit: int = 50,
    ) -> list[PlanView]:
        """Newest first, older than the plan of job ``before``."""
        query = select(Plan).order_by(Plan.job_id.desc()).limit(limit)
        for column, value in (
            (Plan.model_digest, model),
            (Plan.gpu, gpu),
            (Plan.runtime, runtime),
        ):
            if value:
                query = query.where(column == value)
        if before:
            query = query.where(Plan.job_id < before)
        return [views.plan_view(row) for row in self._connection.execute(query)]
