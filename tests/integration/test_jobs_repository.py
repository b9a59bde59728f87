"""Submissions, reading and cancelling."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import partial

import pytest
from sqlalchemy import event, func, select
from sqlalchemy.exc import IntegrityError

from tests import values
from tests.together import together
from trtfarm.contract.builder_config import BuilderConfig
from trtfarm.contract.digest import Digest
from trtfarm.contract.jobs import Disposition, JobKind, JobState, Outcome
from trtfarm.contract.leases import RetryPolicy
from trtfarm.contract.profiles import OptimizationProfile
from trtfarm.contract.spec import BuildSpec
from trtfarm.errors import (
    IdempotencyConflictError,
    JobTerminalError,
    NotFoundError,
    StaleFenceError,
)
from trtfarm_db.models import Job, JobEvent, Submission
from trtfarm_db.repositories import events
from trtfarm_db.repositories.jobs import Caller, JobRepository, NewJob, RepeatedSubmissionError

H200 = values.TARGET.model_copy(
    update={"gpu": "h200", "compute_capability": "9.0", "runtime": "tensorrt-8.6.0"}
)
PLUGIN, CALIBRATION = values.blob("plugin"), values.blob("calibration")
RICH = BuildSpec(
    model=values.MODEL,
    target=H200,
    config=BuilderConfig(
        tf32=False,
        memory_pool_limits={"workspace": 2**40},
        precision_constraints="obey",
        layer_output_types={"split": ("fp16", "fp32")},
    ),
    profiles=(
        OptimizationProfile.model_validate(
            {"入力": {"min": [1], "opt": [2], "max": [3]}, 'a"\\': {"min": [], "opt": [], "max": []}}
        ),
    ),
    plugins=(PLUGIN.digest,),
    calibration=CALIBRATION.digest,
)


def count(farm, table):
    with farm.database.transaction() as connection:
        return connection.execute(select(func.count()).select_from(table)).scalar_one()


@pytest.fixture
def inputs(farm) -> None:
    with farm.artifacts() as artifacts:
        artifacts.add_all(plugin=PLUGIN, calibration=CALIBRATION)


# --- creating ---


def test_a_new_job(farm, inputs):
    job = farm.create(RICH, priority=7)
    assert job is not None
    assert (job.model, job.target, job.config, job.profiles) == (
        RICH.model,
        RICH.target,
        RICH.config,
        RICH.profiles,
    )
    assert (job.kind, job.state, job.build_key) == (JobKind.BUILD, JobState.QUEUED, RICH.build_key)
    assert (job.priority, job.timeout_seconds, job.attempt) == (7, 60.0, 0)
    assert (job.worker_id, job.progress, job.plan, job.error) == (None, None, None, None)
    assert (job.started_at, job.finished_at, job.cancel_requested) == (None, None, False)
    assert abs(job.created_at - datetime.now(UTC)) < timedelta(seconds=5)
    assert farm.events(job.job_id) == ["queued"]


def test_what_is_claimed_is_the_very_spec_that_was_submitted(farm, inputs):
    farm.create(RICH)
    claim = farm.claim(queues=[H200.queue])
    assert claim is not None
    assert claim.spec == RICH
    assert claim.spec.build_key == RICH.build_key


def test_a_build_in_flight_is_not_queued_again(farm):
    job_id = farm.submit()
    assert farm.create(values.spec()) is None
    claim = farm.claimed()
    assert farm.create(values.spec()) is None
    farm.finish(claim)
    again = farm.create(values.spec())
    assert again is not None
    assert again.job_id > job_id
    assert count(farm, Job) == 2
    assert count(farm, JobEvent) == 4


@pytest.mark.parametrize("end", ["fail", "cancel"])
def test_a_build_that_ended_badly_can_be_queued_again(farm, end):
    job_id = farm.submit()
    if end == "fail":
        farm.fail(farm.claimed())
    else:
        farm.cancel(job_id)
    assert farm.create(values.spec()) is not None


def test_a_job_needs_its_model(farm):
    unknown = values.spec(model=Digest.of_bytes(b"never uploaded"))
    with pytest.raises(IntegrityError):
        farm.create(unknown)


def test_ids_are_in_the_order_of_creation(farm):
    ids = [farm.submit(number) for number in range(50)]
    assert ids == sorted(ids)


def test_32_threads_create_one_build(farm):
    jobs = together([lambda: farm.create(values.spec())] * 32)
    assert [job for job in jobs if isinstance(job, Exception)] == []
    [created] = [job for job in jobs if job is not None]
    with farm.jobs() as repository:
        found = repository.find_by_key(created.build_key)
    assert found is not None
    assert found.job_id == created.job_id
    assert count(farm, Job) == count(farm, JobEvent) == 1


def test_threads_that_create_many_builds(farm):
    jobs = together([lambda number=number: farm.create(values.spec(number % 4)) for number in range(16)])
    assert [job for job in jobs if isinstance(job, Exception)] == []
    assert len([job for job in jobs if job is not None]) == count(farm, Job) == 4


# --- finding by key ---


def found_by_key(farm, number=0):
    with farm.jobs() as jobs:
        job = jobs.find_by_key(values.spec(number).build_key)
    return job and job.job_id


def test_found_is_the_job_in_flight_else_the_newest_that_succeeded(farm):
    assert found_by_key(farm) is None
    first = farm.submit()
    assert found_by_key(farm) == first
    farm.finish(farm.claimed(), values.result("first"))
    assert found_by_key(farm) == first
    second = farm.submit()
    assert found_by_key(farm) == second
    claim = farm.claimed()
    assert found_by_key(farm) == second
    farm.fail(claim)
    assert found_by_key(farm) == first
    third = farm.submit()
    farm.finish(farm.claimed(), values.result("third"))
    assert found_by_key(farm) == third
    assert found_by_key(farm, 1) is None
    with farm.jobs() as jobs:
        job = jobs.find_by_key(values.spec().build_key)
    assert job is not None
    assert job.plan is not None
    assert job.plan.digest == values.blob("third").digest


def test_failed_and_cancelled_jobs_are_not_found(farm):
    farm.submit()
    farm.fail(farm.claimed())
    farm.cancel(farm.submit())
    assert found_by_key(farm) is None


# --- submissions ---

CALLER = Caller("alice", "key-1", "hash-1")


def submitted(farm, caller, job_id, disposition=Disposition.CREATED):
    with farm.jobs() as jobs:
        jobs.add_submission(caller, job_id, disposition)


def repeated(farm, caller):
    with farm.jobs() as jobs:
        return jobs.find_submission(caller)


def test_a_repeated_submission_is_answered_as_the_first(farm):
    job_id = farm.submit()
    assert repeated(farm, CALLER) is None
    submitted(farm, CALLER, job_id, Disposition.JOINED)
    assert repeated(farm, CALLER) == (job_id, Disposition.JOINED)


def test_a_key_is_for_one_request(farm):
    submitted(farm, CALLER, farm.submit())
    with pytest.raises(IdempotencyConflictError):
        repeated(farm, Caller("alice", "key-1", "hash-2"))


def test_keys_are_of_their_callers(farm):
    job_id = farm.submit()
    submitted(farm, CALLER, job_id)
    bob = Caller("bob", "key-1", "hash-2")
    assert repeated(farm, bob) is None
    submitted(farm, bob, job_id)
    assert count(farm, Submission) == 2


def test_without_a_key_every_submission_is_its_own(farm):
    job_id = farm.submit()
    for _ in range(3):
        submitted(farm, Caller("alice"), job_id)
    assert repeated(farm, Caller("alice")) is None
    assert count(farm, Submission) == 3


def test_a_key_that_was_used_meanwhile(farm):
    job_id = farm.submit()
    submitted(farm, CALLER, job_id)
    with pytest.raises(RepeatedSubmissionError):
        submitted(farm, CALLER, job_id)
    assert count(farm, Submission) == 1


def test_32_threads_with_one_idempotency_key_create_one_job(farm):
    """Each would create a job of its own; all but one are undone as a whole."""

    def submit(number):
        with farm.jobs() as jobs:
            job = jobs.create(NewJob(values.spec(number), 0, 60.0))
            jobs.add_submission(CALLER, job.job_id, Disposition.CREATED)
            return job.job_id

    outcomes = together([lambda number=number: submit(number) for number in range(32)])
    [job_id] = [each for each in outcomes if not isinstance(each, Exception)]
    losers = [each for each in outcomes if isinstance(each, Exception)]
    assert {type(each) for each in losers} == {RepeatedSubmissionError}
    assert count(farm, Job) == count(farm, Submission) == count(farm, JobEvent) == 1
    assert repeated(farm, CALLER) == (job_id, Disposition.CREATED)


# --- reading ---


def test_a_job_that_is_not_there(farm):
    with pytest.raises(NotFoundError, match="no job no-such-job"):
        farm.job("no-such-job")
    with pytest.raises(NotFoundError):
        farm.cancel("no-such-job")


def test_attempts_tell_who_tried_and_what_became_of_it(farm):
    job_id = farm.submit()
    assert farm.job(job_id).attempts == ()
    log = values.blob("log")
    farm.fail(farm.claimed("worker-1"), values.failure(Outcome.TIMEOUT, retryable=True, log=log))
    farm.finish(farm.claimed("worker-2"))
    first, second = farm.job(job_id).attempts or ()
    assert (first.number, first.worker_id, first.outcome, first.log) == (
        1,
        "worker-1",
        Outcome.TIMEOUT,
        log.digest,
    )
    assert first.error is not None
    assert first.error.message == "It did not work."
    assert (second.number, second.worker_id, second.outcome) == (2, "worker-2", Outcome.COMPLETE)
    assert (second.error, second.log) == (None, None)
    assert first.ended_at is not None
    assert first.started_at <= first.ended_at <= second.started_at <= second.ended_at


def test_events_after_one_that_is_known(farm):
    job_id, other = farm.submit(0), farm.submit(1)
    farm.finish(farm.claimed())
    with farm.database.transaction() as connection:
        everything = events.after(connection, job_id, 0)
        later = events.after(connection, job_id, everything[0].id)
    assert [each.kind for each in everything] == ["queued", "started", "succeeded"]
    assert later == everything[1:]
    assert {each.job_id for each in everything} == {job_id}
    assert everything[1].data == {"attempt": 1, "worker_id": "worker-1"}
    assert farm.events(other) == ["queued"]


def page(farm, **query):
    with farm.jobs() as jobs:
        return [job.job_id for job in jobs.page(**query)]


def test_pages_are_newest_first_and_fit_together(farm):
    ids = [farm.submit(number) for number in range(7)][::-1]
    assert page(farm) == ids
    assert page(farm, limit=3) == ids[:3]
    assert page(farm, limit=3, before=ids[2]) == ids[3:6]
    assert page(farm, limit=3, before=ids[5]) == ids[6:]
    assert page(farm, before=ids[-1]) == []


def test_pages_of_some_jobs(farm):
    done = farm.submit(0)
    farm.finish(farm.claimed())
    queued = farm.submit(1)
    elsewhere = farm.create(values.spec(target=H200))
    assert page(farm, states=[JobState.SUCCEEDED]) == [done]
    assert page(farm, states=[JobState.SUCCEEDED, JobState.QUEUED]) == [elsewhere.job_id, queued, done]
    assert page(farm, gpus=["h200"]) == [elsewhere.job_id]
    assert page(farm, gpus=["l4"]) == []
    assert page(farm, model=values.MODEL, states=[JobState.QUEUED]) == [elsewhere.job_id, queued]
    assert page(farm, model=Digest.of_bytes(b"other")) == []
    with farm.jobs() as jobs:
        assert [job.plan is not None for job in jobs.page()] == [False, False, True]


# --- cancelling ---


def test_a_queued_job_ends_at_once(farm):
    job_id = farm.submit()
    job = farm.cancel(job_id)
    assert (job.state, job.cancel_requested) == (JobState.CANCELLED, True)
    assert job.finished_at is not None
    assert farm.claim() is None
    assert farm.events(job_id) == ["queued", "cancelled"]


def test_a_running_job_is_told(farm):
    job_id = farm.submit()
    claim = farm.claimed()
    assert not farm.renew(claim).cancel_requested
    for _ in range(2):  # asking twice is asking once
        job = farm.cancel(job_id)
        assert (job.state, job.cancel_requested) == (JobState.RUNNING, True)
    assert farm.renew(claim).cancel_requested
    assert farm.fail(claim, values.failure(Outcome.CANCELLED)) is JobState.CANCELLED
    assert farm.events(job_id) == ["queued", "started", "cancel_requested", "cancelled"]
    assert farm.attempts(job_id) == [(1, "cancelled")]
    assert farm.job(job_id).error is None


def test_a_retryable_failure_of_a_job_to_be_cancelled_is_not_tried_again(farm):
    job_id = farm.submit()
    claim = farm.claimed()
    farm.cancel(job_id)
    assert farm.fail(claim, values.failure(Outcome.CRASHED, retryable=True)) is JobState.CANCELLED
    assert farm.claim() is None


def test_a_lost_worker_of_a_job_to_be_cancelled_ends_it(farm):
    job_id = farm.submit()
    claim = farm.claimed()
    farm.cancel(job_id)
    farm.lose(claim)
    assert farm.state(job_id) is JobState.CANCELLED
    assert farm.attempts(job_id) == [(1, "lost")]


def test_a_stopping_worker_of_a_job_to_be_cancelled_ends_it(farm):
    job_id = farm.submit()
    claim = farm.claimed()
    farm.cancel(job_id)
    farm.release(claim)
    assert farm.state(job_id) is JobState.CANCELLED
    assert farm.attempts(job_id) == [(1, "cancelled")]
    assert farm.events(job_id)[-1] == "cancelled"


def test_a_lapsed_job_ends_and_its_silent_holder_learns_of_it(farm):
    job_id = farm.submit()
    claim = farm.claimed()
    farm.lose(claim)
    assert farm.cancel(job_id).state is JobState.CANCELLED
    assert farm.attempts(job_id) == [(1, "lost")]
    with pytest.raises(StaleFenceError):
        farm.renew(claim)
    with pytest.raises(StaleFenceError):
        farm.finish(claim)
    assert farm.all_plans() == []


@pytest.mark.parametrize("end", ["finish", "fail", "cancel"])
def test_what_has_ended_cannot_be_cancelled(farm, end):
    job_id = farm.submit()
    if end == "cancel":
        farm.cancel(job_id)
    else:
        getattr(farm, end)(farm.claimed())
    before = farm.row(job_id)
    with pytest.raises(JobTerminalError, match=before.state):
        farm.cancel(job_id)
    assert farm.row(job_id) == before


def test_a_job_that_was_to_be_cancelled_may_still_finish(farm):
    job_id = farm.submit()
    claim = farm.claimed()
    farm.cancel(job_id)
    farm.finish(claim)
    assert farm.state(job_id) is JobState.SUCCEEDED


def test_cancel_and_finish_at_once_have_one_winner(farm):
    for number in range(12):
        job_id = farm.submit(number)
        claim = farm.claimed()
        if number % 2:
            farm.lose(claim)  # queued with a holder: both would end it
        cancelled, finished = together([partial(farm.cancel, job_id), partial(farm.finish, claim)])
        job = farm.job(job_id)
        if job.state is JobState.SUCCEEDED:
            assert finished is None
            assert isinstance(cancelled, JobTerminalError) or cancelled.state is JobState.RUNNING
        else:
            assert job.state is JobState.CANCELLED
            assert isinstance(finished, StaleFenceError)
        assert (job.plan is not None) == (job.state is JobState.SUCCEEDED)
        assert len([kind for kind in farm.events(job_id) if kind in {"succeeded", "cancelled"}]) == 1


def test_cancel_and_claim_at_once_lose_neither(farm):
    for number in range(12):
        job_id = farm.submit(number)
        cancelled, claim = together([partial(farm.cancel, job_id), farm.claim])
        assert not isinstance(cancelled, Exception)
        if claim is None:
            assert farm.state(job_id) is JobState.CANCELLED
        else:
            assert farm.renew(claim).cancel_requested
            farm.fail(claim)


def test_a_job_that_goes_back_to_the_queue_in_the_middle_of_a_cancel(farm):
    """Between two statements of the cancelling transaction its job is reaped, if anybody can."""
    job_id = farm.submit()
    farm.claimed()
    farm.expire(job_id)
    with farm.database.transaction() as connection:
        if connection.dialect.name == "postgresql":  # SQLite has one writer at a time
            event.listen(connection, "after_cursor_execute", lambda *_: farm.reap())
        job = JobRepository(connection).cancel(job_id)
        assert job.cancel_requested
    farm.reap()
    assert farm.state(job_id) is JobState.CANCELLED


# --- for the ring ---


def test_queues_with_work(farm):
    def waiting():
        with farm.jobs() as jobs:
            return jobs.queues_with_work()

    assert waiting() == []
    farm.submit(0)
    farm.submit(1)
    farm.create(values.spec(target=H200))
    assert sorted(waiting()) == sorted([values.QUEUE, H200.queue])
    patient = farm.but(policy=RetryPolicy(backoff_seconds=3600))
    claim = farm.claim(queues=[H200.queue])
    assert waiting() == [values.QUEUE]
    patient.fail(claim, values.failure(retryable=True))
    assert waiting() == [values.QUEUE]
    with farm.jobs() as jobs:
        assert jobs.any_queued(H200.queue)  # but later
        assert not jobs.any_queued("tensorrt-8.6.0.l4")


def test_counts_of_live_jobs(farm):
    def counts():
        with farm.jobs() as jobs:
            return sorted(jobs.counts())

    assert counts() == []
    for number in range(3):
        farm.submit(number)
    farm.create(values.spec(target=H200))
    farm.finish(farm.claimed())
    farm.claimed()
    assert counts() == [
        (H200.queue, JobState.QUEUED, 1),
        (values.QUEUE, JobState.QUEUED, 1),
        (values.QUEUE, JobState.RUNNING, 1),
    ]
