"""What GPUs teach: timing caches and benchmarks."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, ForeignKey, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from trtfarm_db.base import Base, Json, UtcDateTime, db_now

_ID = String(36)
_DIGEST = String(71)


class TimingCache(Base):
    """One revision of a timing cache; all are kept. The primary key is the compare-and-swap."""

    __tablename__ = "timing_caches"

    key: Mapped[str] = mapped_column(String(64), primary_key=True)
    revision: Mapped[int] = mapped_column(primary_key=True)
    digest: Mapped[str] = mapped_column(_DIGEST)
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    gpu: Mapped[str] = mapped_column(String(80))
    runtime: Mapped[str] = mapped_column(String(80))
    device: Mapped[dict[str, Any] | None] = mapped_column(Json)
    entries: Mapped[int | None]
    job_id: Mapped[str | None] = mapped_column(_ID)
    worker_id: Mapped[str | None] = mapped_column(_ID)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, default=db_now())

    __table_args__ = (Index("ix_timing_caches_gpu_runtime", "gpu", "runtime"),)


class Benchmark(Base):
    """The one result of a benchmark job."""

    __tablename__ = "benchmarks"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    plan_digest: Mapped[str] = mapped_column(_DIGEST, index=True)
    model_digest: Mapped[str] = mapped_column(ForeignKey("models.digest"))
    gpu: Mapped[str] = mapped_column(String(80))
    runtime: Mapped[str] = mapped_column(String(80))
    options: Mapped[dict[str, Any]] = mapped_column(Json)
    measurement: Mapped[dict[str, Any]] = mapped_column(Json)
    device: Mapped[dict[str, Any]] = mapped_column(Json)
    log_digest: Mapped[str | None] = mapped_column(_DIGEST)
    times_digest: Mapped[str | None] = mapped_column(_DIGEST)
    layer_profile_digest: Mapped[str | None] = mapped_column(_DIGEST)
    layer_information_digest: Mapped[str | None] = mapped_column(_DIGEST)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, default=db_now())

    __table_args__ = (
        Index("ix_benchmarks_gpu_runtime_model_digest", "gpu", "runtime", "model_digest"),
        Index("ix_benchmarks_model_digest_gpu_job_id", "model_digest", "gpu", "job_id"),
    )
