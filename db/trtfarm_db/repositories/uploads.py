"""Uploads under way."""

from __future__ import annotations

from sqlalchemy import Connection, insert, select, update
from uuid_utils import uuid7

from trtfarm.contract.v1 import UploadRequest
from trtfarm.errors import NotFoundError
from trtfarm_db.base import db_now
from trtfarm_db.models import Upload


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
                Upload.completed_at.is_(None),
            )
            .order_by(Upload.id.desc())
        )
        return next((row.id for row in rows if row.external_data == manifest), None)

    def get(self, upload_id: str, principal: str) -> tuple[UploadRequest, bool]:
        """What was announced, and whether it is complete.

        Raises:
            NotFoundError: no such upload of this caller.
        """
        row = self._connection.execute(
            select(Upload).where(Upload.id == upload_id, Upload.principal == principal)
        ).first()
        if row is None:
            raise NotFoundError(f"There is no upload {upload_id}; start a new one.")
        request = UploadRequest(
            digest=row.digest, size_bytes=row.size_bytes, kind=row.kind, external_data=row.external_data
        )
        return request, row.completed_at is not None

    def complete(self, upload_id: str) -> None:
        self._connection.execute(update(Upload).where(Upload.id == upload_id).values(completed_at=db_now()))
