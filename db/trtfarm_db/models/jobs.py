"""Jobs, the submissions that led to them, their attempts and events."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    ForeignKey,
    Identity,
    Index,
    Integer,
    String,
    literal_column,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from trtfarm.contract.jobs import LOCAL
from trtfarm_db.base import Base, Json, UtcDateTime, db_now

_ID = String(36)
_LIVE = text("state IN ('queued', 'running')")
_QUEUED = text("state = 'queued'")
_RUNNING = text("state = 'running'")
_SUCCEEDED = text("state = 'succeeded'")


class Job(Base):
    """One unit of work. ``fence`` only grows; what carries an older one has no effect.

    Attributes:
        quota: the API keys against whose limit of running jobs it counts; empty if one has no limit.
        submitter: the participant that the attempt under way, or else the next one, is charged to.
        turn: sorts as the job's id, or as one made when it last crashed.
    """

    __tablename__ = "jobs"

    id: Mapped[str] = mapped_column(_ID, primary_key=True)
    kind: Mapped[str] = mapped_column(String(16))
    state: Mapped[str] = mapped_column(String(16))
    build_key: Mapped[str] = mapped_column(String(64))
    queue: Mapped[str] = mapped_column(String(200))
    model_digest: Mapped[str] = mapped_column(ForeignKey("models.digest"))
    gpu: Mapped[str] = mapped_column(String(80))
    runtime: Mapped[str] = mapped_column(String(80))
    spec: Mapped[dict[str, Any]] = mapped_column(Json)
    benchmark: Mapped[dict[str, Any] | None] = mapped_column(Json)
    priority: Mapped[int] = mapped_column(default=0)
    quota: Mapped[str] = mapped_column(String(16), server_default="")
    submitter: Mapped[str] = mapped_column(String(64), server_default=LOCAL)
    turn: Mapped[str] = mapped_column(_ID, server_default="")
    timeout_seconds: Mapped[float]
    fence: Mapped[int] = mapped_column(BigInteger, default=0)
    attempt: Mapped[int] = mapped_column(default=0)
    crashes: Mapped[int] = mapped_column(default=0)
    worker_id: Mapped[str | None] = mapped_column(_ID)
    gpu_uuid: Mapped[str | None] = mapped_column(String(80))
    lease_expires_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    available_at: Mapped[datetime] = mapped_column(UtcDateTime, default=db_now())
    cancel_requested_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    progress: Mapped[dict[str, Any] | None] = mapped_column(Json)
    error: Mapped[dict[str, Any] | None] = mapped_column(Json)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, default=db_now())
    started_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    finished_at: Mapped[datetime | None] = mapped_column(UtcDateTime)

    __table_args__ = (
        CheckConstraint("state IN ('queued', 'running', 'succeeded', 'failed', 'cancelled')", name="state"),
        CheckConstraint(
            "(state = 'running') = (lease_expires_at IS NOT NULL AND worker_id IS NOT NULL)", name="lease"
        ),
        CheckConstraint(
            "(state IN ('succeeded', 'failed', 'cancelled')) = (finished_at IS NOT NULL)", name="finished"
        ),
        CheckConstraint("(state = 'failed') = (error IS NOT NULL)", name="error"),
        Index("uq_jobs_live_build_key", "build_key", unique=True, postgresql_where=_LIVE, sqlite_where=_LIVE),
        Index("ix_jobs_build_key_id", "build_key", "id"),
        Index(
            "ix_jobs_claim",
            "queue",
            "quota",
            "crashes",
            text("priority DESC"),
            "id",
            postgresql_where=_QUEUED,
            sqlite_where=_QUEUED,
        ),
        Index("ix_jobs_oldest", "queue", "quota", "turn", postgresql_where=_QUEUED, sqlite_where=_QUEUED),
        # None has lease_expires_at: with PostgreSQL, a renewal would write into every index of its row.
        Index("ix_jobs_running_submitter", "submitter", postgresql_where=_RUNNING, sqlite_where=_RUNNING),
        Index("ix_jobs_model_digest", "model_digest"),
        Index(  # how long jobs of a model took on a target
            "ix_jobs_history_of_model",
            "queue",
            "kind",
            "model_digest",
            "id",
            postgresql_where=_SUCCEEDED,
            sqlite_where=_SUCCEEDED,
        ),
        Index(  # and all jobs
            "ix_jobs_history", "queue", "kind", "id", postgresql_where=_SUCCEEDED, sqlite_where=_SUCCEEDED
        ),
        Index(
            "uq_jobs_running_gpu_uuid",
            "gpu_uuid",
            unique=True,
            postgresql_where=_RUNNING,
            sqlite_where=_RUNNING,
        ),
    )


# Literals: of a parameter, no database knows that it is what a partial index has.
IS_QUEUED = Job.state == literal_column("'queued'")
IS_RUNNING = Job.state == literal_column("'running'")
IS_SUCCEEDED = Job.state == literal_column("'succeeded'")


class JobInput(Base):
    """An artifact that a job reads beside its model or plan, as a benchmark its inputs."""

    __tablename__ = "job_inputs"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    digest: Mapped[str] = mapped_column(String(71), primary_key=True)


class Submission(Base):
    """A client's call and what it did; for a campaign or standing order, once for each job.

    Its principal takes part in a job that it created or joined, until it is withdrawn.
    """

    __tablename__ = "submissions"

    id: Mapped[str] = mapped_column(_ID, primary_key=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), index=True)
    disposition: Mapped[str] = mapped_column(String(16))
    principal: Mapped[str] = mapped_column(String(64))
    project: Mapped[str] = mapped_column(String(64), server_default="default")
    idempotency_key: Mapped[str | None] = mapped_column(String(255))
    request_hash: Mapped[str | None] = mapped_column(String(64))
    origin_id: Mapped[str | None] = mapped_column(_ID)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, default=db_now())
    withdrawn_at: Mapped[datetime | None] = mapped_column(UtcDateTime)

    __table_args__ = (
        Index("uq_submissions_idempotency", "principal", "idempotency_key", unique=True),
        Index("uq_submissions_origin", "origin_id", "job_id", unique=True),
    )


class QuotaMember(Base):
    """A key of a quota; what jobs count against is a quota of one key, or of all that have submitted them."""

    __tablename__ = "quota_members"

    quota: Mapped[str] = mapped_column(String(16), primary_key=True)
    key_id: Mapped[str] = mapped_column(String(16), primary_key=True)


class Attempt(Base):
    """One execution; appended at claim, closed once, never changed after."""

    __tablename__ = "attempts"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    fence: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    number: Mapped[int]
    worker_id: Mapped[str] = mapped_column(_ID)
    started_at: Mapped[datetime] = mapped_column(UtcDateTime, default=db_now())
    ended_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    outcome: Mapped[str | None] = mapped_column(String(16))
    error: Mapped[dict[str, Any] | None] = mapped_column(Json)
    log_digest: Mapped[str | None] = mapped_column(String(71))


class JobEvent(Base):
    """What happened to a job, in order of ``id``."""

    __tablename__ = "job_events"

    id: Mapped[int] = mapped_column(
        BigInteger().with_variant(Integer, "sqlite"), Identity(always=False), primary_key=True
    )
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"))
    kind: Mapped[str] = mapped_column(String(24))
    data: Mapped[dict[str, Any]] = mapped_column(Json)
    at: Mapped[datetime] = mapped_column(UtcDateTime, default=db_now())

    __table_args__ = (Index("ix_job_events_job_id_id", "job_id", "id"),)
