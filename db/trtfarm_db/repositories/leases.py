"""The lease protocol: claim, renew, finish, fail, release, reap.

Every write of an attempt carries its fence. A fence that is not the job's current one changes nothing
(``StaleFenceError``), so a worker that was given up for dead cannot disturb its successor. Reaping
returns a job to the queue *without* moving the fence: a worker that was only silent goes on if nobody
has claimed the job meanwhile. Everything that ends an attempt on purpose does move it.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from functools import lru_cache
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    bindparam,
    insert,
    literal_column,
    select,
    union_all,
    update,
)
from sqlalchemy.exc import IntegrityError
from sqlalchemy.sql.dml import ReturningUpdate
from uuid_utils import uuid7

from trtfarm.contract.jobs import JobState, Outcome
from trtfarm.contract.leases import AttemptFailure, BenchmarkResult, BuildResult, Claim, Renewal, RetryPolicy
from trtfarm.contract.v1 import ErrorView, Progress
from trtfarm.errors import GpuBusyError, StaleFenceError
from trtfarm_db.base import db_now
from trtfarm_db.models import Attempt, Benchmark, Job, Plan
from trtfarm_db.models.jobs import IS_RUNNING
from trtfarm_db.repositories import views
from trtfarm_db.repositories.artifacts import ArtifactRepository
from trtfarm_db.repositories.attempts import close_attempts
from trtfarm_db.repositories.events import record
from trtfarm_db.repositories.quotas import QuotaRepository

_CLAIMS_AT_ONCE = 100  # by other workers, on one queue, at the same moment: their rows are locked
_NO_LEASE: dict[str, Any] = {
    "worker_id": None,
    "gpu_uuid": None,
    "lease_expires_at": None,
    "progress": None,
}


@lru_cache
def _claim_best(
    queues: tuple[str, ...], quotas: int, lease_seconds: float, *, oldest: bool
) -> ReturningUpdate[Any]:
    """Claims the best job of these queues that nobody else is claiming, for ``worker`` on ``device``.

    The first rows of every queue and quota come in order from an index, however many jobs wait;
    ``queue IN (...)`` would sort them all. ``quota_0`` … are the ``quotas`` that are not reached.
    """
    nobody: list[ColumnElement[str]] = [literal_column("''")]
    counts_against = nobody + [bindparam(f"quota_{number}") for number in range(quotas)]
    columns = (Job.id, Job.priority, Job.crashes, Job.turn)
    order = (Job.turn,) if oldest else (Job.crashes, Job.priority.desc(), Job.id)
    ready = (Job.state == literal_column(f"'{JobState.QUEUED}'"), Job.available_at <= db_now())
    heads = [
        select(*columns)
        .where(Job.queue == queue, Job.quota == quota, *ready)
        .order_by(*order)
        .limit(_CLAIMS_AT_ONCE)
        .subquery()
        for queue in queues
        for quota in counts_against
    ]
    waiting = union_all(*(select(head) for head in heads)).subquery()
    first = (waiting.c.turn,) if oldest else (waiting.c.crashes, waiting.c.priority.desc(), waiting.c.id)
    best = (
        select(Job.id)
        .join(waiting, waiting.c.id == Job.id)
        .where(*ready)  # as the row is once it is locked
        .order_by(*first)
        .limit(1)
        .with_for_update(of=Job, skip_locked=True)
        .scalar_subquery()
    )
    return (
        update(Job)
        .where(Job.id == best)
        .values(
            state=JobState.RUNNING.value,
            fence=Job.fence + 1,
            attempt=Job.attempt + 1,
            worker_id=bindparam("worker"),
            gpu_uuid=bindparam("device"),
            lease_expires_at=db_now(lease_seconds),
            started_at=db_now(),
        )
        .returning(Job)
    )


class LeaseRepository:
    """``lease_seconds``: how long a worker may be silent before its job goes to another."""

    def __init__(self, connection: Connection, *, lease_seconds: float, policy: RetryPolicy) -> None:
        self._connection = connection
        self._lease_seconds = lease_seconds
        self._policy = policy

    def claim(
        self, queues: Sequence[str], worker_id: str, gpu_uuid: str | None = None, *, oldest: bool = False
    ) -> Claim | None:
        """The best job of these queues (priority, then age); None if there is nothing to do.

        Those that have crashed come behind all others. ``oldest``: the one that has waited longest, whatever
        its priority, and since its last crash; see ``OLDEST_EVERY``.

        Raises:
            GpuBusyError: the GPU has a running job already.
        """
        if not queues:
            return None
        bound = {"worker": worker_id, "device": gpu_uuid}
        quotas = QuotaRepository(self._connection)
        open_quotas = quotas.open(queues)
        while True:
            statement = _claim_best(tuple(queues), len(open_quotas), self._lease_seconds, oldest=oldest)
            names = {f"quota_{number}": key for number, key in enumerate(open_quotas)}
            with self._connection.begin_nested() if open_quotas else nullcontext() as attempt:
                try:
                    row = self._connection.execute(statement, {**bound, **names}).first()
                except IntegrityError as error:
                    raise GpuBusyError from error
                if row is None:
                    return None
                claim = self._started(row, worker_id)
                if attempt is None or not row.quota:
                    return claim
                # Last, for others who claim for these keys wait from here to the end of the transaction.
                submitter = quotas.charge(row.id, row.quota)
                if submitter is not None:
                    return claim.model_copy(update={"submitter": submitter})
                attempt.rollback()  # others claimed for these keys at the same moment
            open_quotas = [quota for quota in open_quotas if quota != row.quota]

    def renew(
        self, claim: Claim, worker_id: str, progress: Progress | None, gpu_uuid: str | None = None
    ) -> Renewal:
        """Extends the lease, also one that has run out if nobody claimed the job since.

        Raises:
            StaleFenceError: the job belongs to another attempt or has ended; stop and discard.
            GpuBusyError: the lease had run out, and the GPU has another running job since; give way.
        """
        renewed = (
            update(Job)
            .where(*self._mine(claim))
            .values(
                state=JobState.RUNNING.value,
                worker_id=worker_id,
                gpu_uuid=gpu_uuid,
                lease_expires_at=db_now(self._lease_seconds),
                progress=progress.model_dump() if progress else None,
            )
            .returning(Job.cancel_requested_at)
        )
        try:
            row = self._connection.execute(renewed).first()
        except IntegrityError as error:
            raise GpuBusyError from error
        if row is None:
            raise StaleFenceError
        return Renewal(cancel_requested=row.cancel_requested_at is not None)

    def finish(self, claim: Claim, result: BuildResult) -> None:
        """Commits the one result of a job. The blobs must be in the store.

        Raises:
            StaleFenceError: as in ``renew``.
        """
        self._end(claim, JobState.SUCCEEDED, {})
        ArtifactRepository(self._connection).add_all(plan=result.plan, io=result.io, log=result.log)
        spec = claim.spec
        self._connection.execute(
            insert(Plan).values(
                job_id=claim.job_id,
                digest=str(result.plan.digest),
                size_bytes=result.plan.size_bytes,
                model_digest=str(spec.model),
                gpu=spec.target.gpu,
                runtime=spec.target.runtime,
                spec=spec.model_dump(mode="json", exclude_none=True),
                build_key=spec.build_key,
                portable=spec.config.portable,
                build_seconds=result.build_seconds,
                io_digest=result.io and str(result.io.digest),
                log_digest=result.log and str(result.log.digest),
                timing_cache=result.timing_cache.model_dump() if result.timing_cache else None,
            )
        )
        close_attempts(
            self._connection,
            claim.job_id,
            Outcome.COMPLETE,
            log=str(result.log.digest) if result.log else None,
        )
        record(
            self._connection,
            claim.job_id,
            "succeeded",
            plan=result.plan.digest,
            size_bytes=result.plan.size_bytes,
            build_seconds=result.build_seconds,
        )

    def finish_benchmark(self, claim: Claim, result: BenchmarkResult) -> None:
        """Commits the one measurement of a job. Raises StaleFenceError, as in ``renew``."""
        if claim.benchmark is None:
            raise StaleFenceError("This claim is not of a benchmark.")
        self._end(claim, JobState.SUCCEEDED, {})
        blobs = {
            "log": result.log,
            "times": result.times,
            "layer_profile": result.layer_profile,
            "layer_information": result.layer_information,
        }
        ArtifactRepository(self._connection).add_all(**blobs)
        self._connection.execute(
            insert(Benchmark).values(
                job_id=claim.job_id,
                plan_digest=str(claim.benchmark.plan),
                model_digest=str(claim.spec.model),
                gpu=result.device.gpu,
                runtime=claim.spec.target.runtime,
                options=claim.benchmark.options.model_dump(mode="json"),
                measurement=result.measurement.model_dump(mode="json"),
                device=result.device.model_dump(mode="json"),
                **{f"{kind}_digest": str(blob.digest) if blob else None for kind, blob in blobs.items()},
            )
        )
        log = str(result.log.digest) if result.log else None
        close_attempts(self._connection, claim.job_id, Outcome.COMPLETE, log=log)
        record(
            self._connection,
            claim.job_id,
            "succeeded",
            throughput_qps=result.measurement.throughput_qps,
            gpu_compute_mean_ms=result.measurement.gpu_compute.mean,
        )

    def fail(self, claim: Claim, failure: AttemptFailure) -> JobState:
        """Ends an attempt without a result; returns the job's state after it.

        A retryable failure puts the job back into its queue until the policy's limits are reached; after a
        crash, behind the others there. So does a cancellation that was taken back in the meantime.

        Raises:
            StaleFenceError: as in ``renew``.
        """
        job = self._locked(claim)
        if failure.outcome is Outcome.CANCELLED and job.cancel_requested_at is None:
            self._give_back(claim.job_id, "JOINED", "Somebody else wants it.")
            return JobState.QUEUED
        crashes = job.crashes + failure.counts_as_crash
        again = (
            failure.retryable
            and job.attempt < self._policy.max_attempts
            and crashes < self._policy.max_crashes
        )
        if failure.log is not None:
            ArtifactRepository(self._connection).add(failure.log, "log")
        error = failure.error.model_dump(mode="json")
        if job.cancel_requested_at is not None:
            state = JobState.CANCELLED
            self._end(claim, state, {})
        elif again:
            state = JobState.QUEUED
            turn = str(uuid7()) if failure.counts_as_crash else job.turn
            self._requeue(claim.job_id, job.attempt, fence=Job.fence + 1, crashes=crashes, turn=turn)
        else:
            state = JobState.FAILED
            self._end(claim, state, {"error": error, "crashes": crashes})
        outcome = Outcome.CANCELLED if state is JobState.CANCELLED else failure.outcome
        close_attempts(
            self._connection,
            claim.job_id,
            outcome,
            error=error,
            log=str(failure.log.digest) if failure.log else None,
        )
        kind = "requeued" if state is JobState.QUEUED else state.value
        record(self._connection, claim.job_id, kind, code=failure.error.code, message=failure.error.message)
        return state

    def release(self, claim: Claim) -> None:
        """Gives a job back untouched (drain, Ctrl-C): the attempt is not charged.

        A job that is to be cancelled ends here instead.

        Raises:
            StaleFenceError: as in ``renew``.
        """
        if self._locked(claim).cancel_requested_at is not None:
            self._end(claim, JobState.CANCELLED, {})
            close_attempts(self._connection, claim.job_id, Outcome.CANCELLED)
            record(self._connection, claim.job_id, "cancelled")
            return
        self._give_back(claim.job_id, "RELEASED", "The worker is stopping.")

    def reap(self) -> list[str]:
        """Jobs whose worker has been silent for longer than its lease: back to the queue, or failed
        where that happened too often. Returns their ids.
        """
        rows = self._connection.execute(
            select(Job.id, Job.attempt, Job.cancel_requested_at)
            .where(IS_RUNNING, Job.lease_expires_at < db_now())
            .with_for_update(skip_locked=True)
        ).all()
        for row in rows:
            error = ErrorView(code="WORKER_LOST", message="The worker stopped answering.")
            if row.cancel_requested_at is not None:
                self._terminate(JobState.CANCELLED, {}, Job.id == row.id)
                close_attempts(self._connection, row.id, Outcome.LOST)
                record(self._connection, row.id, "cancelled")
            elif row.attempt >= self._policy.max_attempts:
                self._terminate(JobState.FAILED, {"error": error.model_dump(mode="json")}, Job.id == row.id)
                close_attempts(self._connection, row.id, Outcome.LOST)
                record(self._connection, row.id, "failed", code=error.code, message=error.message)
            else:
                self._requeue(row.id, row.attempt, fence=Job.fence)
                record(self._connection, row.id, "requeued", code=error.code, message=error.message)
        return [row.id for row in rows]

    # --- the pieces ---

    def _started(self, row: Any, worker_id: str) -> Claim:
        claim = views.claim(row)
        if claim.fence > 1:  # else nobody has had it
            close_attempts(self._connection, claim.job_id, Outcome.LOST)
        self._connection.execute(
            insert(Attempt).values(
                job_id=claim.job_id, fence=claim.fence, number=claim.attempt, worker_id=worker_id
            )
        )
        record(self._connection, claim.job_id, "started", attempt=claim.attempt, worker_id=worker_id)
        return claim

    @staticmethod
    def _mine(claim: Claim) -> tuple[Any, ...]:
        # Queued with my fence: my lease ran out, and nobody has claimed the job since.
        return (
            Job.id == claim.job_id,
            Job.fence == claim.fence,
            Job.state.in_([JobState.RUNNING, JobState.QUEUED]),
        )

    def _locked(self, claim: Claim) -> Any:
        row = self._connection.execute(select(Job).where(*self._mine(claim)).with_for_update()).first()
        if row is None:
            raise StaleFenceError
        return row

    def _end(self, claim: Claim, state: JobState, values: dict[str, Any]) -> None:
        if not self._terminate(state, values, *self._mine(claim)):
            raise StaleFenceError

    def _terminate(self, state: JobState, values: dict[str, Any], *which: ColumnElement[bool]) -> bool:
        """Whether there was such a job."""
        ended = self._connection.execute(
            update(Job)
            .where(*which)
            .values(state=state.value, fence=Job.fence + 1, finished_at=db_now(), **_NO_LEASE, **values)
            .returning(Job.id)
        )
        return ended.first() is not None

    def _give_back(self, job_id: str, code: str, message: str) -> None:
        self._connection.execute(
            update(Job)
            .where(Job.id == job_id)
            .values(state=JobState.QUEUED.value, fence=Job.fence + 1, attempt=Job.attempt - 1, **_NO_LEASE)
        )
        close_attempts(self._connection, job_id, Outcome.RELEASED)
        record(self._connection, job_id, "requeued", code=code, message=message)

    def _requeue(self, job_id: str, attempt: int, **values: Any) -> None:
        backoff = self._policy.backoff_seconds * 2 ** (attempt - 1)
        self._connection.execute(
            update(Job)
            .where(Job.id == job_id)
            .values(state=JobState.QUEUED.value, available_at=db_now(backoff), **_NO_LEASE, **values)
        )
