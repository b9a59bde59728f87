"""Uploads under way."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from sqlalchemy import Connection, case, delete, func, insert, select, update
from uuid_utils import uuid7

from trtfarm.contract.digest import Digest
from trtfarm.contract.v1 import UploadRequest
from trtfarm.errors import NotFoundError, UploadExpiredError
from trtfarm_db.base import db_now, dialect_insert
from trtfarm_db.models import ApiKey, Artifact, ArtifactState, Upload, UploadedFile

_LOCK = 0x7472_7570  # "trup": one announcement at a time
_OPEN = (Upload.completed_at.is_(None), Upload.expired_at.is_(None))


class Announced(NamedTuple):
    """A file that is on its way in, or is to be."""

    upload_id: str
    principal: str
    size_bytes: int


class Allowance(NamedTuple):
    """What a submitter has brought, whoever else has brought it too, and what its key may.

    ``counted``: the file that was asked for is among it.
    """

    is_key: bool
    max_bytes: int | None
    stored_bytes: int
    counted: bool


class UploadRepository:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def create(self, request: UploadRequest, principal: str) -> str:
        upload_id = str(uuid7())
        self._connection.execute(
            insert(Upload).values(
                id=upload_id,
                principal=principal,
                digest=str(request.digest),
                size_bytes=request.size_bytes,
                kind=request.kind,
                external_data=[file.model_dump(mode="json") for file in request.external_data],
            )
        )
        return upload_id

    def find_open(self, request: UploadRequest, principal: str) -> str | None:
        """An unfinished upload of the same file by the same caller, to be resumed."""
        manifest = [file.model_dump(mode="json") for file in request.external_data]
        rows = self._connection.execute(
            select(Upload.id, Upload.external_data)
            .where(
                Upload.principal == principal,
                Upload.digest == str(request.digest),
                Upload.size_bytes == request.size_bytes,
                Upload.kind == request.kind,
                *_OPEN,
            )
            .order_by(Upload.id.desc())
        )
        return next((row.id for row in rows if row.external_data == manifest), None)

    def get(self, upload_id: str, principal: str) -> tuple[UploadRequest, bool]:
        """What was announced, and whether it is complete.

        Raises:
            NotFoundError: no such upload of this caller.
            UploadExpiredError: nothing came for too long.
        """
        row = self._connection.execute(
            select(Upload).where(Upload.id == upload_id, Upload.principal == principal)
        ).first()
        if row is None:
            raise NotFoundError(f"There is no upload {upload_id}; start a new one.")
        if row.expired_at is not None:
            raise UploadExpiredError(f"Upload {upload_id} has expired.", hint="Announce the file again.")
        request = UploadRequest(
            digest=row.digest, size_bytes=row.size_bytes, kind=row.kind, external_data=row.external_data
        )
        return request, row.completed_at is not None

    def completed(self, upload_ids: Collection[str]) -> set[str]:
        """Those of them whose files were accepted."""
        query = select(Upload.id).where(Upload.id.in_(upload_ids), Upload.completed_at.is_not(None))
        return set(self._connection.execute(query).scalars())

    def complete(self, upload_id: str) -> None:
        """Its file is in the store, and counts as brought by its submitter."""
        row = self._connection.execute(
            update(Upload)
            .where(Upload.id == upload_id)
            .values(completed_at=db_now(), expired_at=None)
            .returning(Upload.principal, Upload.digest)
        ).first()
        if row is None:
            return
        self._connection.execute(
            dialect_insert(self._connection.dialect.name, UploadedFile)
            .values(principal=row.principal, digest=row.digest)
            .on_conflict_do_nothing()
        )

    # --- what submitters take up ---

    def one_at_a_time(self) -> None:
        """Until the transaction ends, nobody else announces a file."""
        if self._connection.dialect.name == "postgresql":  # SQLite has one writer
            self._connection.execute(select(func.pg_advisory_xact_lock(_LOCK)))

    def announced(self) -> list[Announced]:
        """All that are open."""
        rows = self._connection.execute(select(Upload.id, Upload.principal, Upload.size_bytes).where(*_OPEN))
        return [Announced(*row) for row in rows]

    def allowance(self, principal: str, digest: Digest) -> Allowance:
        key = self._connection.execute(select(ApiKey.max_bytes).where(ApiKey.id == principal)).first()
        theirs = (UploadedFile.principal == principal, Artifact.state == ArtifactState.READY.value)
        counted = func.max(case((Artifact.digest == str(digest), 1), else_=0))
        brought = self._connection.execute(
            select(func.sum(Artifact.size_bytes), counted)
            .join(UploadedFile, UploadedFile.digest == Artifact.digest)
            .where(*theirs)
        ).one()
        return Allowance(
            is_key=key is not None,
            max_bytes=key.max_bytes if key else None,
            stored_bytes=int(brought[0] or 0),
            counted=bool(brought[1]),
        )

    # --- for those that sweep up ---

    def unfinished(self, older_than_seconds: float) -> list[str]:
        """Uploads that were announced so long ago and are open still."""
        return list(
            self._connection.execute(
                select(Upload.id).where(*_OPEN, Upload.created_at < db_now(-older_than_seconds))
            ).scalars()
        )

    def open_among(self, upload_ids: Collection[str]) -> set[str]:
        return set(
            self._connection.execute(select(Upload.id).where(*_OPEN, Upload.id.in_(upload_ids))).scalars()
        )

    def expire(self, upload_id: str) -> bool:
        """Whether it was open until now."""
        changed = self._connection.execute(
            update(Upload).where(Upload.id == upload_id, *_OPEN).values(expired_at=db_now())
        ).rowcount
        return changed == 1

    def forget(self, ended_before_seconds: float) -> int:
        """Drops the rows of uploads that were complete, or had expired, so long ago; returns how many."""
        ended = func.coalesce(Upload.completed_at, Upload.expired_at)
        return self._connection.execute(delete(Upload).where(ended < db_now(-ended_before_seconds))).rowcount
