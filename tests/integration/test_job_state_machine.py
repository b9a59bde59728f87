"""The job state machine against a model of it in memory, on both databases.

Hypothesis makes up histories of clients, workers, clocks and reapers. After each step, all rows of all
jobs must be what the model says.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import delete, select

from tests import values
from tests.integration.farm import Farm
from trtfarm.contract.jobs import LIVE, TRANSITIONS, JobState, Outcome
from trtfarm.contract.leases import Claim, RetryPolicy
from trtfarm.errors import ConflictError, GpuBusyError, JobTerminalError, StaleFenceError
from trtfarm_db.base import Base
from trtfarm_db.models import Attempt, Job, JobEvent, Plan
from trtfarm_db.repositories.cancelling import CancelRepository

BUILD_KEYS = 3
POLICY = RetryPolicy(max_attempts=3, max_crashes=2, backoff_seconds=3600)
QUEUED, RUNNING = JobState.QUEUED, JobState.RUNNING
# Two of them, by mistake, on one GPU.
GPU_OF = {"worker-1": "GPU-1", "worker-2": "GPU-1", "worker-3": "GPU-2", "worker-4": None}
WORKERS = st.sampled_from(sorted(GPU_OF))


@dataclass
class ModelJob:
    """What a job should look like."""

    number: int  # of its build
    priority: int
    turn: int  # by when it was submitted, or has crashed
    state: JobState = QUEUED
    fence: int = 0
    attempt: int = 0
    crashes: int = 0
    worker_id: str | None = None
    gpu: str | None = None  # held while it runs
    to_be_cancelled: bool = False
    available: bool = True  # no backoff, or it has passed
    expired: bool = False
    attempts: dict[int, str | None] = field(default_factory=dict)  # fence → outcome
    events: list[str] = field(default_factory=lambda: ["queued"])

    @property
    def live(self) -> bool:
        return self.state in LIVE

    def go(self, state: JobState, event: str | None = None) -> None:
        assert state is self.state or state in TRANSITIONS[self.state]
        self.state = state
        self.expired = False
        if state is not RUNNING:
            self.worker_id = self.gpu = None
        if event:
            self.events.append(event)

    def close(self, outcome: Outcome) -> None:
        for fence, known in self.attempts.items():
            self.attempts[fence] = known or outcome.value

    def end(self, state: JobState, outcome: Outcome) -> None:
        self.go(state, state.value)
        self.fence += 1
        self.close(outcome)


class JobMachine(RuleBasedStateMachine):
    def __init__(self, farm: Farm) -> None:
        super().__init__()
        self.farm = farm
        self.jobs: dict[str, ModelJob] = {}
        self.turns = 0
        self.claims: list[Claim] = []

    @initialize(priorities=st.lists(st.integers(-1, 1), min_size=BUILD_KEYS, max_size=BUILD_KEYS))
    def start(self, priorities: list[int]) -> None:
        with self.farm.database.transaction() as connection:
            for table in reversed(Base.metadata.sorted_tables):
                connection.execute(delete(table))
        self.farm.add_model()
        for number, priority in enumerate(priorities):
            self.submit(number, priority)

    # --- clients ---

    @precondition(lambda self: self.count(QUEUED, RUNNING) < BUILD_KEYS)
    @rule(number=st.integers(0, BUILD_KEYS - 1), priority=st.integers(-1, 1))
    def submit(self, number: int, priority: int) -> None:
        in_flight = any(job.live and job.number == number for job in self.jobs.values())
        created = self.farm.create(values.spec(number), priority)
        assert (created is None) == in_flight
        if created is not None:
            self.jobs[created.job_id] = ModelJob(number, priority, self.next_turn())

    @precondition(lambda self: self.count(RUNNING))
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        job_id, job = self.any_job(data, lambda job: job.state is RUNNING)
        if not job.live:
            with pytest.raises(JobTerminalError):
                self.farm.cancel(job_id)
            return
        view = self.farm.cancel(job_id)
        assert view.cancel_requested
        if job.state is QUEUED:
            job.end(JobState.CANCELLED, Outcome.LOST)
        elif not job.to_be_cancelled:
            job.events.append("cancel_requested")
        job.to_be_cancelled = True
        assert view.state is job.state

    @rule(data=st.data(), priority=st.integers(-1, 1))
    def prioritize(self, data: st.DataObject, priority: int) -> None:
        job_id, job = self.any_job(data, lambda job: job.state is QUEUED)
        if job.state is not QUEUED:
            with pytest.raises(ConflictError), self.farm.jobs() as jobs:
                jobs.prioritize(job_id, priority)
            return
        with self.farm.jobs() as jobs:
            jobs.prioritize(job_id, priority)
        job.priority = priority
        job.events.append("prioritized")

    @precondition(lambda self: self.count(QUEUED))
    @rule(limit=st.integers(1, 2))
    def cancel_many(self, limit: int) -> None:
        waiting = sorted(job_id for job_id, job in self.jobs.items() if job.state is QUEUED)[:limit]
        with self.farm.database.transaction() as connection:
            assert CancelRepository(connection).queued(limit=limit).ended == set(waiting)
        for job_id in waiting:
            self.jobs[job_id].end(JobState.CANCELLED, Outcome.LOST)
            self.jobs[job_id].to_be_cancelled = True

    @rule(number=st.integers(0, BUILD_KEYS - 1))
    def look(self, number: int) -> None:
        same = {job_id: job for job_id, job in self.jobs.items() if job.number == number}
        live = [job_id for job_id, job in same.items() if job.live]
        done = [job_id for job_id, job in same.items() if job.state is JobState.SUCCEEDED]
        with self.farm.jobs() as jobs:
            found = jobs.find_by_key(values.spec(number).build_key)
            counts = {state: count for _, state, count in jobs.counts()}
            queues = jobs.queues_with_work()
        assert (found and found.job_id) == (live[0] if live else max(done, default=None))
        assert counts == {state: self.count(state) for state in LIVE if self.count(state)}
        ready = any(job.state is QUEUED and job.available for job in self.jobs.values())
        assert queues == ([values.QUEUE] if ready else [])

    # --- workers ---

    @precondition(lambda self: self.count(QUEUED))
    @rule(
        worker_id=WORKERS,
        later=st.sampled_from([True, True, True, False]),
        oldest=st.sampled_from([False, False, True]),
    )
    def claim(self, worker_id: str, *, later: bool, oldest: bool) -> None:
        if later:
            self.backoffs_pass()
        waiting = [
            ((job.turn,) if oldest else (job.crashes, -job.priority, job_id), job_id)
            for job_id, job in self.jobs.items()
            if job.state is QUEUED and job.available
        ]
        gpu = GPU_OF[worker_id]
        if waiting and self.taken(gpu):
            with pytest.raises(GpuBusyError):
                self.farm.claim(worker_id, gpu_uuid=gpu, oldest=oldest)
            return
        claim = self.farm.claim(worker_id, gpu_uuid=gpu, oldest=oldest)
        if not waiting:
            assert claim is None
            return
        assert claim is not None
        assert claim.job_id == min(waiting)[1]
        job = self.jobs[claim.job_id]
        job.close(Outcome.LOST)
        job.go(RUNNING, "started")
        job.fence += 1
        job.attempt += 1
        job.worker_id, job.gpu = worker_id, gpu
        job.attempts[job.fence] = None
        assert (claim.fence, claim.attempt, claim.spec) == (job.fence, job.attempt, values.spec(job.number))
        self.claims.append(claim)

    @precondition(lambda self: any(map(self.mine, self.claims)))
    @rule(data=st.data(), worker_id=WORKERS)
    def renew(self, data: st.DataObject, worker_id: str) -> None:
        claim, job = self.any_claim(data)
        if job is None:
            with pytest.raises(StaleFenceError):
                self.farm.renew(claim, worker_id)
            return
        gpu = GPU_OF[worker_id]
        if gpu != job.gpu and self.taken(gpu):
            with pytest.raises(GpuBusyError):
                self.farm.renew(claim, worker_id, gpu_uuid=gpu)
            return
        renewal = self.farm.renew(claim, worker_id, gpu_uuid=gpu)
        assert renewal.cancel_requested == job.to_be_cancelled
        job.go(RUNNING)
        job.worker_id, job.gpu = worker_id, gpu

    @precondition(lambda self: any(map(self.mine, self.claims)))
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        claim, job = self.any_claim(data)
        result = values.result(f"{claim.job_id} {claim.fence}")
        if job is None:
            with pytest.raises(StaleFenceError):
                self.farm.finish(claim, result)
            return
        self.farm.finish(claim, result)
        job.end(JobState.SUCCEEDED, Outcome.COMPLETE)

    @precondition(lambda self: any(map(self.mine, self.claims)))
    @rule(
        data=st.data(),
        outcome=st.sampled_from([Outcome.CRASHED, Outcome.CRASHED, Outcome.FAILED, Outcome.TIMEOUT]),
        retryable=st.sampled_from([True, True, True, False]),
    )
    def fail(self, data: st.DataObject, outcome: Outcome, *, retryable: bool) -> None:
        claim, job = self.any_claim(data)
        failure = values.failure(outcome, retryable=retryable)
        if job is None:
            with pytest.raises(StaleFenceError):
                self.farm.fail(claim, failure)
            return
        state = self.farm.fail(claim, failure)
        if job.to_be_cancelled:
            job.end(JobState.CANCELLED, Outcome.CANCELLED)
        else:
            crashed = outcome is Outcome.CRASHED or (outcome is Outcome.TIMEOUT and retryable)
            job.crashes += crashed
            exhausted = job.attempt >= POLICY.max_attempts or job.crashes >= POLICY.max_crashes
            if retryable and not exhausted:
                job.go(QUEUED, "requeued")
                job.fence += 1
                job.turn = self.next_turn() if crashed else job.turn
                job.available = False
                job.close(outcome)
            else:
                job.end(JobState.FAILED, outcome)
        assert state is job.state

    @precondition(lambda self: any(map(self.mine, self.claims)))
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        claim, job = self.any_claim(data)
        if job is None:
            with pytest.raises(StaleFenceError):
                self.farm.release(claim)
            return
        self.farm.release(claim)
        if job.to_be_cancelled:
            job.end(JobState.CANCELLED, Outcome.CANCELLED)
        else:
            job.go(QUEUED, "requeued")
            job.fence += 1
            job.attempt -= 1
            job.close(Outcome.RELEASED)

    # --- time, and who watches it ---

    @precondition(lambda self: self.count(RUNNING))
    @rule(data=st.data(), reaped=st.sampled_from([True, True, False]))
    def lease_runs_out(self, data: st.DataObject, *, reaped: bool) -> None:
        running = [job_id for job_id, job in self.jobs.items() if job.state is RUNNING]
        job_id = data.draw(st.sampled_from(running))
        self.farm.expire(job_id)
        self.jobs[job_id].expired = True
        if reaped:
            self.reap()

    @precondition(lambda self: self.count(RUNNING))
    @rule()
    def reap(self) -> None:
        silent = {job_id: job for job_id, job in self.jobs.items() if job.expired}
        assert sorted(self.farm.reap()) == sorted(silent)
        for job in silent.values():
            if job.to_be_cancelled:
                job.end(JobState.CANCELLED, Outcome.LOST)
            elif job.attempt >= POLICY.max_attempts:
                job.end(JobState.FAILED, Outcome.LOST)
            else:
                job.go(QUEUED, "requeued")  # the attempt stays open: its holder may only be silent
                job.available = False

    # --- what must hold ---

    @invariant()
    def rows_are_what_the_model_says(self) -> None:
        with self.farm.database.transaction() as connection:
            rows = {row.id: row for row in connection.execute(select(Job))}
            attempts = connection.execute(select(Attempt).order_by(Attempt.fence)).all()
            events = connection.execute(select(JobEvent).order_by(JobEvent.id)).all()
            plans = {row.job_id: row.digest for row in connection.execute(select(Plan))}
        assert set(rows) == set(self.jobs)
        for job_id, job in self.jobs.items():
            row = rows[job_id]
            assert (row.state, row.fence, row.attempt, row.crashes, row.priority) == (
                job.state,
                job.fence,
                job.attempt,
                job.crashes,
                job.priority,
            )
            assert (row.worker_id, row.gpu_uuid) == (job.worker_id, job.gpu)
            assert (row.cancel_requested_at is not None) == job.to_be_cancelled
            tried = [attempt for attempt in attempts if attempt.job_id == job_id]
            assert {attempt.fence: attempt.outcome for attempt in tried} == job.attempts
            assert all((attempt.ended_at is None) == (attempt.outcome is None) for attempt in tried)
            assert [event.kind for event in events if event.job_id == job_id] == job.events
            succeeded = [fence for fence, outcome in job.attempts.items() if outcome == Outcome.COMPLETE]
            assert plans.get(job_id) == (
                values.blob(f"{job_id} {succeeded[0]}").digest if succeeded else None
            )
            assert bool(succeeded) == (job.state is JobState.SUCCEEDED)
            assert len(succeeded) <= 1

    @invariant()
    def attempts_builds_and_gpus_are_exclusive(self) -> None:
        held = [job.gpu for job in self.jobs.values() if job.gpu]
        assert len(held) == len(set(held))
        live = [job.number for job in self.jobs.values() if job.live]
        assert len(live) == len(set(live))
        for job in self.jobs.values():
            still_open = [fence for fence, outcome in job.attempts.items() if outcome is None]
            assert len(still_open) <= (1 if job.live else 0)
            assert job.attempt <= POLICY.max_attempts

    # --- the pieces ---

    def next_turn(self) -> int:
        self.turns += 1
        return self.turns

    def count(self, *states: JobState) -> int:
        return sum(job.state in states for job in self.jobs.values())

    def taken(self, gpu: str | None) -> bool:
        return gpu is not None and any(job.gpu == gpu for job in self.jobs.values())

    def backoffs_pass(self) -> None:
        for job_id, job in self.jobs.items():
            if not job.available:
                self.farm.change(job_id, available_at=datetime.now(UTC) - timedelta(seconds=5))
                job.available = True

    def mine(self, claim: Claim) -> ModelJob | None:
        """The job, if the claim still counts."""
        job = self.jobs[claim.job_id]
        return job if job.live and job.fence == claim.fence else None

    def any_job(self, data: st.DataObject, better: Callable[[ModelJob], bool]) -> tuple[str, ModelJob]:
        """Mostly one of the better ones, so that histories go far."""
        some = [job_id for job_id, job in self.jobs.items() if better(job)]
        job_id = data.draw(st.sampled_from(4 * some + list(self.jobs)))
        return job_id, self.jobs[job_id]

    def any_claim(self, data: st.DataObject) -> tuple[Claim, ModelJob | None]:
        """Mostly one that counts; the job only if it does."""
        some = [claim for claim in self.claims if self.mine(claim)]
        claim = data.draw(st.sampled_from(4 * some + self.claims))
        return claim, self.mine(claim)


def test_every_history_goes_as_the_model_says(database):
    farm = Farm(database, policy=POLICY)
    run_state_machine_as_test(
        lambda: JobMachine(farm),
        settings=settings(
            max_examples=50,
            stateful_step_count=50,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
