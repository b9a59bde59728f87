"""The repositories as a farm uses them: each call a transaction of its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Row, select, update

from tests import values
from trtfarm.contract.jobs import JobState
from trtfarm.contract.leases import AttemptFailure, BuildResult, Claim, Renewal, RetryPolicy
from trtfarm.contract.spec import BuildSpec
from trtfarm.contract.v1 import JobView, PlanView, Progress
from trtfarm_db.base import db_now
from trtfarm_db.engine import Database
from trtfarm_db.models import Attempt, Job
from trtfarm_db.repositories import events
from trtfarm_db.repositories.artifacts import ArtifactRepository, ModelRepository, PlanRepository
from trtfarm_db.repositories.jobs import JobRepository, NewJob
from trtfarm_db.repositories.leases import LeaseRepository

WORKER = "worker-1"
AT_ONCE = RetryPolicy(backoff_seconds=0)


class Farm:
    def __init__(
        self, database: Database, *, lease_seconds: float = 600.0, policy: RetryPolicy = AT_ONCE
    ) -> None:
        self.database = database
        self._lease_seconds = lease_seconds
        self._policy = policy

    def but(self, *, lease_seconds: float | None = None, policy: RetryPolicy | None = None) -> Farm:
        """The same database under other rules."""
        return Farm(
            self.database,
            lease_seconds=self._lease_seconds if lease_seconds is None else lease_seconds,
            policy=policy or self._policy,
        )

    @contextmanager
    def jobs(self) -> Iterator[JobRepository]:
        with self.database.transaction() as connection:
            yield JobRepository(connection)

    @contextmanager
    def leases(self) -> Iterator[LeaseRepository]:
        with self.database.transaction() as connection:
            yield LeaseRepository(connection, lease_seconds=self._lease_seconds, policy=self._policy)

    @contextmanager
    def artifacts(self) -> Iterator[ArtifactRepository]:
        with self.database.transaction() as connection:
            yield ArtifactRepository(connection)

    @contextmanager
    def models(self) -> Iterator[ModelRepository]:
        with self.database.transaction() as connection:
            yield ModelRepository(connection)

    @contextmanager
    def plans(self) -> Iterator[PlanRepository]:
        with self.database.transaction() as connection:
            yield PlanRepository(connection)

    # --- what clients and workers do ---

    def add_model(self) -> None:
        with self.models() as models:
            models.add(values.MANIFEST, values.INFO)

    def create(self, spec: BuildSpec, priority: int = 0) -> JobView | None:
        with self.jobs() as jobs:
            return jobs.create(NewJob(spec, priority, timeout_seconds=60.0))

    def submit(self, number: int = 0, *, priority: int = 0) -> str:
        job = self.create(values.spec(number), priority)
        assert job is not None
        return job.job_id

    def cancel(self, job_id: str) -> JobView:
        with self.jobs() as jobs:
            return jobs.cancel(job_id)

    def claim(
        self,
        worker_id: str = WORKER,
        queues: Sequence[str] = (values.QUEUE,),
        *,
        oldest: bool = False,
        gpu_uuid: str | None = None,
    ) -> Claim | None:
        with self.leases() as leases:
            return leases.claim(queues, worker_id, gpu_uuid, oldest=oldest)

    def claimed(self, worker_id: str = WORKER) -> Claim:
        claim = self.claim(worker_id)
        assert claim is not None
        return claim

    def renew(
        self,
        claim: Claim,
        worker_id: str = WORKER,
        progress: Progress | None = None,
        gpu_uuid: str | None = None,
    ) -> Renewal:
        with self.leases() as leases:
            return leases.renew(claim, worker_id, progress, gpu_uuid)

    def finish(self, claim: Claim, result: BuildResult | None = None) -> None:
        with self.leases() as leases:
            leases.finish(claim, result or values.result())

    def fail(self, claim: Claim, failure: AttemptFailure | None = None) -> JobState:
        with self.leases() as leases:
            return leases.fail(claim, failure or values.failure())

    def release(self, claim: Claim) -> None:
        with self.leases() as leases:
            leases.release(claim)

    def reap(self) -> list[str]:
        with self.leases() as leases:
            return leases.reap()

    # --- time passes ---

    def expire(self, job_id: str) -> None:
        """As if the lease had just run out."""
        self.change(job_id, lease_expires_at=db_now(-1))

    def lose(self, claim: Claim) -> None:
        """The lease runs out and is reaped."""
        self.expire(claim.job_id)
        assert self.reap() == [claim.job_id]

    def change(self, job_id: str, **columns: Any) -> None:
        with self.database.transaction() as connection:
            changed = connection.execute(update(Job).where(Job.id == job_id).values(columns)).rowcount
        assert changed == 1

    # --- looking ---

    def job(self, job_id: str) -> JobView:
        with self.jobs() as jobs:
            return jobs.get(job_id, full=True)

    def state(self, job_id: str) -> JobState:
        return self.job(job_id).state

    def row(self, job_id: str) -> Row[Any]:
        with self.database.transaction() as connection:
            return connection.execute(select(Job).where(Job.id == job_id)).one()

    def attempts(self, job_id: str) -> list[tuple[int, str | None]]:
        """(number, outcome) of each, in the order of their fences."""
        with self.database.transaction() as connection:
            rows = connection.execute(
                select(Attempt.number, Attempt.outcome)
                .where(Attempt.job_id == job_id)
                .order_by(Attempt.fence)
            )
            return [(number, outcome) for number, outcome in rows]

    def events(self, job_id: str) -> list[str]:
        with self.database.transaction() as connection:
            return [event.kind for event in events.after(connection, job_id, 0)]

    def all_plans(self) -> list[PlanView]:
        with self.plans() as plans:
            return plans.page()
