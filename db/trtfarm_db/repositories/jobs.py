"""Submitting, finding and cancelling jobs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from sqlalchemy import Connection, Row, bindparam, func, insert, select, update
from uuid_utils import uuid7

from trtfarm.contract.benchmark import BenchmarkView
from trtfarm.contract.digest import Digest
from trtfarm.contract.jobs import LIVE, LOCAL, Disposition, JobKind, JobState
from trtfarm.contract.leases import BenchmarkWork
from trtfarm.contract.spec import BuildSpec
from trtfarm.contract.target import queue_name
from trtfarm.contract.v1 import JobView, PlanView
from trtfarm.contract.value import canonical_json
from trtfarm.errors import (
    ConflictError,
    IdempotencyConflictError,
    JobTerminalError,
    NotFoundError,
    ScopeMissingError,
)
from trtfarm_db.base import db_now, dialect_insert
from trtfarm_db.models import ApiKey, Attempt, Benchmark, Job, JobInput, Plan, Submission
from trtfarm_db.models.jobs import _LIVE, IS_QUEUED, IS_RUNNING
from trtfarm_db.repositories import views
from trtfarm_db.repositories.artifacts import ArtifactRepository
from trtfarm_db.repositories.cancelling import Cancelled, CancelRepository
from trtfarm_db.repositories.events import record
from trtfarm_db.repositories.participants import ParticipantRepository

# The statements of a submission are made once: SQLAlchemy keeps what it has worked out about a statement,
# which takes longer than PostgreSQL needs to execute it.
_FIND_BY_KEY = (
    select(Job)
    .where(Job.build_key == bindparam("build_key"), Job.state.in_([*LIVE, JobState.SUCCEEDED]))
    .order_by((Job.state == JobState.SUCCEEDED.value), Job.id.desc())
    .limit(1)
)


_QUOTA = (
    select(ApiKey.id)
    .where(ApiKey.id == bindparam("whose"), ApiKey.max_running.is_not(None))
    .scalar_subquery()
)


@cache
def _insert_job(dialect: str) -> Any:
    return (
        dialect_insert(dialect, Job)
        .on_conflict_do_nothing(index_elements=[Job.build_key], index_where=_LIVE)
        .values(quota=func.coalesce(_QUOTA, ""))
        .returning(Job)
    )


@cache
def _insert_submission(dialect: str) -> Any:
    return (
        dialect_insert(dialect, Submission)
        .on_conflict_do_nothing(index_elements=[Submission.principal, Submission.idempotency_key])
        .returning(Submission.id)
    )


@cache
def _queues_with_work() -> Any:
    def least(*where: Any) -> Any:
        return select(func.min(Job.queue).label("queue")).where(IS_QUEUED, *where)

    queues = least().cte("queues", recursive=True)
    following = least(Job.queue > queues.c.queue).scalar_subquery()
    queues = queues.union_all(select(following).where(queues.c.queue.is_not(None)))
    ready = select(Job.id).where(Job.queue == queues.c.queue, IS_QUEUED, Job.available_at <= db_now())
    # In the order of an index: PostgreSQL would read the table for EXISTS, in which the queue may come late.
    first = ready.order_by(Job.queue, Job.quota, Job.turn).limit(1).scalar_subquery()
    return select(queues.c.queue).where(first.is_not(None))


@dataclass(frozen=True)
class NewJob:
    """What a submission asks for, resolved to an exact target.

    ``gpu``: of the queue; a plan for a capability is measured on a product.
    """

    spec: BuildSpec
    priority: int
    timeout_seconds: float
    benchmark: BenchmarkWork | None = None
    gpu: str | None = None

    @property
    def kind(self) -> JobKind:
        return JobKind.BENCHMARK if self.benchmark else JobKind.BUILD

    @property
    def key(self) -> str:
        """Jobs in flight with one key are one job."""
        if self.benchmark is None:
            return self.spec.build_key
        document = {"benchmark": self.benchmark.model_dump(mode="json"), "queue": self.queue}
        return Digest.of_bytes(canonical_json(document)).hex

    @property
    def inputs(self) -> frozenset[Digest]:
        """Artifacts that it reads beside its model or plan."""
        given = self.benchmark.options.inputs.values() if self.benchmark else ()
        calibration = (self.spec.calibration,) if self.spec.calibration else ()
        return frozenset({*given, *self.spec.plugins, *calibration})

    @property
    def queue(self) -> str:
        return queue_name(self.spec.target.runtime, self.gpu or self.spec.target.gpu)


def job_values(new: NewJob, principal: str) -> dict[str, Any]:
    """The row of a job that is queued for ``principal``, under a new id."""
    spec, job_id = new.spec, str(uuid7())
    return {
        "id": job_id,
        "turn": job_id,
        "kind": new.kind.value,
        "state": JobState.QUEUED.value,
        "build_key": new.key,
        "queue": new.queue,
        "model_digest": str(spec.model),
        "gpu": new.gpu or spec.target.gpu,
        "runtime": spec.target.runtime,
        "spec": spec.model_dump(mode="json", exclude_none=True),
        "benchmark": new.benchmark.model_dump(mode="json") if new.benchmark else None,
        "priority": new.priority,
        "timeout_seconds": new.timeout_seconds,
        "submitter": principal,
    }


@dataclass(frozen=True)
class Caller:
    """Who submits; ``idempotency_key`` is unique per principal."""

    principal: str
    idempotency_key: str | None = None
    request_hash: str | None = None


class RepeatedSubmissionError(ConflictError):
    """The same submission was made at the same time."""


class JobRepository:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    # --- submissions ---

    def find_submission(self, caller: Caller) -> tuple[str, Disposition] | None:
        """The job that this caller's Idempotency-Key stands for, and what the first call did.

        Raises:
            IdempotencyConflictError: the key came with another request before.
        """
        if caller.idempotency_key is None:
            return None
        row = self._connection.execute(
            select(Submission.job_id, Submission.disposition, Submission.request_hash).where(
                Submission.principal == caller.principal,
                Submission.idempotency_key == caller.idempotency_key,
            )
        ).first()
        if row is None:
            return None
        if row.request_hash != caller.request_hash:
            raise IdempotencyConflictError
        return row.job_id, Disposition(row.disposition)

    def create(self, new: NewJob, principal: str = LOCAL) -> JobView | None:
        """Queues a job; None if one with the same build key is in flight already.

        ``principal``: whom it is charged to, and against whose quota it counts, if that API key has one.

        Raises:
            ArtifactRemovedError: an input of the benchmark was removed; upload it again.
        """
        values = {**job_values(new, principal), "whose": principal}
        row = self._connection.execute(_insert_job(self._connection.dialect.name), values).first()
        if row is None:
            return None
        if new.inputs:
            self._keep_inputs(row.id, new.inputs)
        record(self._connection, row.id, "queued", target=new.queue)
        return self._view(row)

    def _keep_inputs(self, job_id: str, digests: frozenset[Digest]) -> None:
        ArtifactRepository(self._connection).touch(digests)
        rows = [{"job_id": job_id, "digest": str(digest)} for digest in sorted(digests)]
        self._connection.execute(insert(JobInput), rows)

    def join(self, caller: Caller, job_id: str) -> JobView | None:
        """Makes the caller a participant of a job; None if that has ended.

        Raises:
            RepeatedSubmissionError: the caller's Idempotency-Key was used meanwhile.
        """
        live = select(Job.id).where(Job.id == job_id, Job.state.in_(LIVE))
        # Until the commit, nobody ends it as one that nobody waits for.
        if self._connection.scalar(live.with_for_update(key_share=True)) is None:
            return None
        self.add_submission(caller, job_id, Disposition.JOINED)
        ParticipantRepository(self._connection).joined([job_id])
        return self.get(job_id)

    def add_submission(self, caller: Caller, job_id: str, disposition: Disposition) -> None:
        """Raises RepeatedSubmissionError if the caller's Idempotency-Key was used meanwhile."""
        values = {
            "id": str(uuid7()),
            "job_id": job_id,
            "disposition": disposition.value,
            "principal": caller.principal,
            "idempotency_key": caller.idempotency_key,
            "request_hash": caller.request_hash,
        }
        statement = _insert_submission(self._connection.dialect.name)
        if self._connection.execute(statement, values).first() is None:
            raise RepeatedSubmissionError

    def find_by_key(self, build_key: str) -> JobView | None:
        """The job in flight for a build key, else the newest that succeeded."""
        row = self._connection.execute(_FIND_BY_KEY, {"build_key": build_key}).first()
        return self._view(row) if row else None

    def again(self, job_id: str) -> tuple[JobState, NewJob]:
        """The job's state, and what would do the same work once more. Raises NotFoundError."""
        row = self._connection.execute(select(Job).where(Job.id == job_id)).first()
        if row is None:
            raise NotFoundError(f"There is no job {job_id}.")
        new = NewJob(
            spec=BuildSpec.model_validate(row.spec),
            priority=row.priority,
            timeout_seconds=row.timeout_seconds,
            benchmark=BenchmarkWork.model_validate(row.benchmark) if row.benchmark else None,
            gpu=row.gpu,
        )
        return JobState(row.state), new

    # --- reading ---

    def get(self, job_id: str, *, full: bool = False) -> JobView:
        """``full`` adds attempts.

        Raises:
            NotFoundError: no such job.
        """
        row = self._connection.execute(select(Job).where(Job.id == job_id)).first()
        if row is None:
            raise NotFoundError(f"There is no job {job_id}.")
        if not full:
            return self._view(row)
        attempts = self._connection.execute(
            select(Attempt).where(Attempt.job_id == job_id).order_by(Attempt.fence)
        )
        return self._view(row, attempts=tuple(views.attempt_view(each) for each in attempts))

    def page(
        self,
        *,
        ids: Sequence[str] | None = None,
        states: Sequence[JobState] = (),
        model: str | None = None,
        gpus: Sequence[str] = (),
        before: str | None = None,
        limit: int = 50,
    ) -> list[JobView]:
        """Newest first, older than the job ``before``."""
        query = select(Job).order_by(Job.id.desc()).limit(limit)
        if ids is not None:
            query = query.where(Job.id.in_(ids))
        if states:
            query = query.where(Job.state.in_(states))
        if model:
            query = query.where(Job.model_digest == model)
        if gpus:
            query = query.where(Job.gpu.in_(gpus))
        if before:
            query = query.where(Job.id < before)
        rows = self._connection.execute(query).all()
        done = [row.id for row in rows if row.state == JobState.SUCCEEDED]
        plans, benchmarks = self._plans(done), self._benchmarks(done)
        return [views.job_view(row, plans.get(row.id), benchmarks.get(row.id)) for row in rows]

    # --- cancelling ---

    def cancel(self, job_id: str) -> JobView:
        """Queued: ends here. Running: the worker learns of it with its next heartbeat. For all participants.

        Raises:
            NotFoundError.
            JobTerminalError: it has ended already.
        """
        done = CancelRepository(self._connection).end([job_id])
        return self._cancelled(job_id, done)

    def withdraw(self, job_id: str, principal: str) -> tuple[JobView, int]:
        """Takes a participant out of a job, and ends it, as ``cancel`` does, if that was the last one.

        Returns how many it goes on for.

        Raises:
            NotFoundError, JobTerminalError.
            ScopeMissingError: the job is not theirs.
        """
        self._require_part(job_id, principal)
        done = CancelRepository(self._connection).withdraw([job_id], Submission.principal == principal)
        return self._cancelled(job_id, done), len(ParticipantRepository(self._connection).of(job_id))

    def _require_part(self, job_id: str, principal: str) -> None:
        """Raises NotFoundError, ScopeMissingError."""
        if ParticipantRepository(self._connection).took_part(job_id, principal):
            return
        self.get(job_id)
        raise ScopeMissingError(
            f"Job {job_id} was not submitted with this key.",
            hint="Its submitters may, and with scope admin `job cancel --everyones` and `job prioritize`.",
        )

    def _cancelled(self, job_id: str, done: Cancelled) -> JobView:
        view = self.get(job_id)
        if view.state.terminal and job_id not in done.ended:
            raise JobTerminalError(f"Job {job_id} has already {view.state}.")
        return view

    def prioritize(self, job_id: str, priority: int, principal: str | None = None) -> JobView:
        """Another priority, at the wish of one of its participants, or of an administrator (None).

        Raises:
            NotFoundError, JobTerminalError; ConflictError: it has begun.
            ScopeMissingError: the job is not theirs.
        """
        if principal is not None:
            self._require_part(job_id, principal)
        changed = self._connection.execute(
            update(Job).where(Job.id == job_id, Job.state == JobState.QUEUED).values(priority=priority)
        ).rowcount
        view = self.get(job_id)
        if view.state.terminal:
            raise JobTerminalError(f"Job {job_id} has already {view.state}.")
        if not changed:
            raise ConflictError(f"Job {job_id} runs already; a priority is for those that wait.")
        record(self._connection, job_id, "prioritized", priority=priority)
        return view

    # --- for the ring ---

    def queues_with_work(self) -> list[str]:
        """Queues of jobs that could start now: found by steps from queue to queue, however many jobs wait."""
        return list(self._connection.execute(_queues_with_work()).scalars())

    def any_queued(self, queue: str) -> bool:
        return (
            self._connection.execute(select(Job.id).where(Job.queue == queue, IS_QUEUED).limit(1)).first()
            is not None
        )

    def counts(self) -> list[tuple[str, JobState, int]]:
        """(queue, state, jobs) of all live jobs."""
        # Each state by itself: its partial index has its jobs only, and the table has all there ever were.
        return [
            (queue, state, count)
            for state, is_it in ((JobState.QUEUED, IS_QUEUED), (JobState.RUNNING, IS_RUNNING))
            for queue, count in self._connection.execute(
                select(Job.queue, func.count()).where(is_it).group_by(Job.queue)
            )
        ]

    def _view(self, row: Row[Any], **extra: Any) -> JobView:
        if row.state != JobState.SUCCEEDED:
            return views.job_view(row, None, **extra)
        if row.kind == JobKind.BENCHMARK:
            return views.job_view(row, None, self._benchmarks([row.id]).get(row.id), **extra)
        return views.job_view(row, self._plans([row.id]).get(row.id), **extra)

    def _benchmarks(self, job_ids: list[str]) -> dict[str, BenchmarkView]:
        if not job_ids:
            return {}
        rows = self._connection.execute(select(Benchmark).where(Benchmark.job_id.in_(job_ids)))
        return {row.job_id: views.benchmark_view(row) for row in rows}

    def _plans(self, job_ids: list[str]) -> dict[str, PlanView]:
        if not job_ids:
            return {}
        rows = self._connection.execute(select(Plan).where(Plan.job_id.in_(job_ids)))
        return {row.job_id: views.plan_view(row) for row in rows}
