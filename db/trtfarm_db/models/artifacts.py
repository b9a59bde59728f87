"""Blobs the store holds, and what they are: models, plans, uploads under way."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import BigInteger, ForeignKey, Index, String, false, text
from sqlalchemy.orm import Mapped, mapped_column

from trtfarm_db.base import Base, Json, UtcDateTime, db_now

_ID = String(36)
_DIGEST = String(71)


class ArtifactState(StrEnum):
    """Only ``ready`` ones are handed out. A row that is ``gone`` stays for a while, as a warning to writers.

    ready → deleting (nothing refers to it) → gone; and from both back to ready, when it is put once more
    """

    READY = "ready"
    DELETING = "deleting"
    GONE = "gone"


class Artifact(Base):
    """A published blob. ``etag`` is the store's at the time its bytes were last verified.

    Whoever makes something refer to a blob sets ``touched_at`` in the same transaction.
    """

    __tablename__ = "artifacts"

    digest: Mapped[str] = mapped_column(_DIGEST, primary_key=True)
    kind: Mapped[str] = mapped_column(String(16))
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    etag: Mapped[str] = mapped_column(String(200))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, default=db_now())
    verified_at: Mapped[datetime] = mapped_column(UtcDateTime, default=db_now())
    touched_at: Mapped[datetime] = mapped_column(UtcDateTime, default=db_now())
    state: Mapped[str] = mapped_column(String(16), default=ArtifactState.READY.value)

    __table_args__ = (Index("ix_artifacts_state_verified_at", "state", "verified_at"),)


class Model(Base):
    """An ONNX input; ``manifest`` lists its files, ``info`` what was read from its graph."""

    __tablename__ = "models"

    digest: Mapped[str] = mapped_column(_DIGEST, primary_key=True)
    manifest: Mapped[dict[str, Any]] = mapped_column(Json)
    info: Mapped[dict[str, Any]] = mapped_column(Json)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, default=db_now())

    __table_args__ = (Index("ix_models_created_at_digest", "created_at", "digest"),)


class ModelFile(Base):
    """What a model consists of: its ONNX file and its external data."""

    __tablename__ = "model_files"

    model_digest: Mapped[str] = mapped_column(ForeignKey("models.digest"), primary_key=True)
    digest: Mapped[str] = mapped_column(_DIGEST, primary_key=True)


class Plan(Base):
    """The one result of a build job. ``portable``: its config may let it run beyond its own target."""

    __tablename__ = "plans"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    digest: Mapped[str] = mapped_column(_DIGEST, index=True)
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    model_digest: Mapped[str] = mapped_column(ForeignKey("models.digest"))
    gpu: Mapped[str] = mapped_column(String(80))
    runtime: Mapped[str] = mapped_column(String(80))
    spec: Mapped[dict[str, Any]] = mapped_column(Json)
    build_key: Mapped[str] = mapped_column(String(64), index=True)
    portable: Mapped[bool] = mapped_column(default=False, server_default=false())
    build_seconds: Mapped[float]
    timing_cache: Mapped[dict[str, Any] | None] = mapped_column(Json)
    io_digest: Mapped[str | None] = mapped_column(_DIGEST)
    log_digest: Mapped[str | None] = mapped_column(_DIGEST)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, default=db_now())

    __table_args__ = (
        Index("ix_plans_gpu_runtime_model_digest", "gpu", "runtime", "model_digest"),
        Index("ix_plans_model_digest_gpu_runtime_job_id", "model_digest", "gpu", "runtime", "job_id"),
        Index("ix_plans_model_digest_job_id", "model_digest", "job_id"),
        Index(
            "ix_plans_portable",
            "model_digest",
            "job_id",
            postgresql_where=text("portable"),
            sqlite_where=text("portable"),
        ),
    )


class UploadedFile(Base):
    """Who has brought a blob: each submitter whose upload of it was accepted."""

    __tablename__ = "uploaded_files"

    principal: Mapped[str] = mapped_column(String(64), primary_key=True)
    digest: Mapped[str] = mapped_column(_DIGEST, primary_key=True)


class Upload(Base):
    """A file on its way in. The bytes received so far lie in the API's staging folder.

    ``expired_at``: nothing came for too long, and the bytes are gone.
    """

    __tablename__ = "uploads"

    id: Mapped[str] = mapped_column(_ID, primary_key=True)
    principal: Mapped[str] = mapped_column(String(64))
    digest: Mapped[str] = mapped_column(_DIGEST)
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    kind: Mapped[str] = mapped_column(String(16))
    external_data: Mapped[list[dict[str, Any]]] = mapped_column(Json)
    completed_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    expired_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, default=db_now())
