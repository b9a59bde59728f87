"""The lease protocol: claim, renew, finish, fail, release, reap."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest

from tests import values
from tests.integration.farm import Farm
from tests.together import together
from trtfarm.contract.jobs import JobState, Outcome
from trtfarm.contract.leases import Claim, RetryPolicy
from trtfarm.contract.v1 import Progress
from trtfarm.errors import StaleFenceError
from trtfarm_db.repositories.jobs import NewJob

LATER = RetryPolicy(backoff_seconds=100)
CRASH = values.failure(Outcome.CRASHED, retryable=True)
LOST_DISK = values.failure(retryable=True)
OTHER_QUEUE = values.TARGET.model_copy(update={"gpu": "cc-12.0", "compute_capability": "12.0"})

ENDINGS = {
    "renew": lambda farm, claim: farm.renew(claim),
    "finish": lambda farm, claim: farm.finish(claim),
    "fail": lambda farm, claim: farm.fail(claim),
    "fail and retry": lambda farm, claim: farm.fail(claim, LOST_DISK),
    "release": lambda farm, claim: farm.release(claim),
}


def seconds_until(at: datetime) -> float:
    return (at - datetime.now(UTC)).total_seconds()


# --- claim ---


def test_nothing_to_do(farm):
    assert farm.claim() is None
    assert farm.claim(queues=[]) is None


def test_a_claim(farm):
    job_id = farm.submit()
    claim = farm.claimed("worker-7")
    assert claim == Claim(job_id=job_id, fence=1, attempt=1, spec=values.spec(), timeout_seconds=60.0)
    job = farm.job(job_id)
    assert (job.state, job.worker_id, job.attempt) == (JobState.RUNNING, "worker-7", 1)
    assert job.started_at is not None
    assert abs(seconds_until(farm.row(job_id).lease_expires_at) - 600) < 5
    assert farm.attempts(job_id) == [(1, None)]
    assert farm.claim() is None


def test_priority_then_age(farm):
    priorities = [0, 5, -5, 5, 0, 100, -100]
    ids = [farm.submit(number, priority=priority) for number, priority in enumerate(priorities)]
    order = sorted(range(len(ids)), key=lambda number: (-priorities[number], number))
    assert [farm.claimed().job_id for _ in ids] == [ids[number] for number in order]


def test_a_worker_gets_the_best_of_its_own_queues_only(farm):
    mine = farm.submit(0, priority=-1)
    theirs = farm.create(values.spec(1, target=OTHER_QUEUE), priority=1)
    assert farm.claim(queues=["tensorrt-8.6.0.h200"]) is None
    best = farm.claim(queues=[values.QUEUE, OTHER_QUEUE.queue])
    assert best is not None
    assert best.job_id == theirs.job_id
    assert farm.claim(queues=[OTHER_QUEUE.queue]) is None
    assert farm.claimed().job_id == mine


def test_16_threads_claim_200_jobs_each_once(farm):
    with farm.jobs() as jobs:
        ids = [jobs.create(NewJob(values.spec(number), 0, 60.0)).job_id for number in range(200)]

    def work(worker_id: str) -> list[Claim]:
        claims = []
        while claim := farm.claim(worker_id):
            claims.append(claim)
        return claims

    found = together([lambda number=number: work(f"worker-{number}") for number in range(16)])
    claims = [claim for each in found for claim in each]
    assert sorted(claim.job_id for claim in claims) == ids
    assert {(claim.fence, claim.attempt) for claim in claims} == {(1, 1)}
    for worker, claimed in enumerate(found):
        ids_in_order = [claim.job_id for claim in claimed]
        assert ids_in_order == sorted(ids_in_order)
        if claimed:
            assert farm.job(ids_in_order[-1]).worker_id == f"worker-{worker}"


# --- renew ---


def test_a_renewal_extends_the_lease_and_tells_where_it_stands(farm):
    job_id = farm.submit()
    claim = farm.claimed()
    before = farm.row(job_id).lease_expires_at
    renewal = farm.but(lease_seconds=1200).renew(claim, progress=Progress(stage="tactics", fraction=0.5))
    assert not renewal.cancel_requested
    assert seconds_until(farm.row(job_id).lease_expires_at) > seconds_until(before) + 590
    assert farm.job(job_id).progress == Progress(stage="tactics", fraction=0.5)
    assert farm.row(job_id).fence == claim.fence
    farm.finish(claim)
    assert farm.job(job_id).progress is None


def test_renewing_in_time_keeps_the_job(farm):
    """Its lease would have run out three times."""
    quick = farm.but(lease_seconds=0.5)
    job_id = farm.submit()
    claim = quick.claimed()
    first = quick.row(job_id).lease_expires_at
    while seconds_until(first) > -1:
        quick.renew(claim)
        assert quick.reap() == []
        time.sleep(0.02)
    quick.finish(claim)
    assert farm.attempts(job_id) == [(1, "complete")]


# --- finish ---


def test_a_result(farm):
    job_id = farm.submit()
    claim = farm.claimed()
    result = values.result("plan", log=values.blob("log"))
    farm.finish(claim, result)
    job = farm.job(job_id)
    assert (job.state, job.worker_id, job.error, job.build_seconds) == (JobState.SUCCEEDED, None, None, 1.5)
    assert job.finished_at is not None
    assert job.plan is not None
    assert (job.plan.digest, job.plan.size_bytes) == (result.plan.digest, result.plan.size_bytes)
    assert (job.plan.io, job.plan.log) == (values.blob("io of plan").digest, values.blob("log").digest)
    assert (job.plan.model, job.plan.target, job.plan.config) == (values.MODEL, values.TARGET, job.config)
    assert (job.plan.build_key, job.plan.job_id) == (values.spec().build_key, job_id)
    with farm.artifacts() as artifacts:
        for blob in (result.plan, result.io, result.log):
            assert artifacts.find(blob.digest) == blob
    assert farm.events(job_id) == ["queued", "started", "succeeded"]
    assert [each.log for each in job.attempts or ()] == [values.blob("log").digest]


def test_a_result_is_whole_or_not_at_all(farm):
    """A failure after the last statement undoes all of them."""
    job_id = farm.submit()
    claim = farm.claimed()
    before = farm.row(job_id)

    def finish_and_break() -> None:
        with farm.leases() as leases:
            leases.finish(claim, values.result())
            raise RuntimeError

    with pytest.raises(RuntimeError):
        finish_and_break()
    assert farm.row(job_id) == before
    assert farm.all_plans() == []
    assert farm.attempts(job_id) == [(1, None)]
    farm.finish(claim)


def test_the_first_result_counts(farm):
    farm.submit()
    claim = farm.claimed()
    farm.finish(claim, values.result("first"))
    with pytest.raises(StaleFenceError):
        farm.finish(claim, values.result("second"))
    assert [plan.digest for plan in farm.all_plans()] == [values.blob("first").digest]
    with farm.artifacts() as artifacts:
        assert artifacts.find(values.blob("second").digest) is None


def test_16_threads_with_one_claim_give_one_result(farm):
    job_id = farm.submit()
    claim = farm.claimed()
    outcomes = together(
        [lambda number=number: farm.finish(claim, values.result(f"plan {number}")) for number in range(16)]
    )
    [winner] = [number for number, outcome in enumerate(outcomes) if outcome is None]
    assert {type(outcome) for outcome in outcomes if outcome is not None} == {StaleFenceError}
    assert [plan.digest for plan in farm.all_plans()] == [values.blob(f"plan {winner}").digest]
    assert farm.events(job_id).count("succeeded") == 1


# --- a fence that is not the job's changes nothing ---


def overtaken(farm: Farm, how: str) -> tuple[Claim, str]:
    """A claim that no longer counts."""
    job_id = farm.submit()
    claim = farm.claimed()
    if how == "claimed by another":
        farm.lose(claim)
        assert farm.claimed("worker-2").fence == claim.fence + 1
    elif how == "released and claimed":
        farm.release(claim)
        farm.claimed("worker-2")
    elif how == "released":
        farm.release(claim)
    elif how == "tried again":
        assert farm.fail(claim, LOST_DISK) is JobState.QUEUED
    elif how == "finished":
        farm.finish(claim)
    elif how == "failed":
        farm.fail(claim)
    elif how == "cancelled":
        farm.lose(claim)
        farm.cancel(job_id)
    elif how == "lost too often":
        farm.expire(job_id)
        farm.but(policy=RetryPolicy(max_attempts=1)).reap()
        assert farm.state(job_id) is JobState.FAILED
    else:
        claim = claim.model_copy(update={"job_id": "no-such-job"})
    return claim, job_id


@pytest.mark.parametrize("call", ENDINGS)
@pytest.mark.parametrize(
    "how",
    [
        "claimed by another",
        "released and claimed",
        "released",
        "tried again",
        "finished",
        "failed",
        "cancelled",
        "lost too often",
        "no such job",
    ],
)
def test_an_attempt_that_was_overtaken_changes_nothing(farm, how, call):
    claim, job_id = overtaken(farm, how)
    before = farm.row(job_id), farm.attempts(job_id), farm.events(job_id), farm.all_plans()
    with pytest.raises(StaleFenceError):
        ENDINGS[call](farm, claim)
    assert (farm.row(job_id), farm.attempts(job_id), farm.events(job_id), farm.all_plans()) == before


# --- reap, and the silent holder that comes back ---


def test_leases_that_hold_are_left_alone(farm):
    farm.submit()
    farm.claimed()
    farm.submit(1)
    assert farm.reap() == []


def test_a_lease_runs_out_by_itself(farm):
    quick = farm.but(lease_seconds=0.2)
    job_id = farm.submit()
    quick.claimed()
    deadline = time.monotonic() + 10
    while not (reaped := quick.reap()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert reaped == [job_id]
    job = farm.job(job_id)
    assert (job.state, job.worker_id, job.attempt) == (JobState.QUEUED, None, 1)
    assert farm.row(job_id).fence == 1
    assert farm.events(job_id) == ["queued", "started", "requeued"]
    assert quick.reap() == []


def test_a_lease_that_ran_out_is_still_held_until_it_is_reaped(farm):
    farm.submit()
    claim = farm.claimed()
    farm.expire(claim.job_id)
    farm.renew(claim)
    assert farm.reap() == []
    farm.finish(claim)


def test_a_silent_holder_goes_on_if_nobody_claimed(farm):
    job_id = farm.submit()
    claim = farm.claimed("worker-1")
    farm.lose(claim)
    farm.renew(claim, "worker-1")
    job = farm.job(job_id)
    assert (job.state, job.worker_id, job.attempt) == (JobState.RUNNING, "worker-1", 1)
    assert farm.claim("worker-2") is None
    farm.finish(claim)
    assert farm.attempts(job_id) == [(1, "complete")]


def test_a_silent_holder_may_finish_if_nobody_claimed(farm):
    job_id = farm.submit()
    claim = farm.claimed()
    farm.lose(claim)
    farm.finish(claim)
    assert farm.state(job_id) is JobState.SUCCEEDED
    assert farm.claim() is None
    assert farm.attempts(job_id) == [(1, "complete")]


def test_a_silent_holder_may_fail_if_nobody_claimed(farm):
    job_id = farm.submit()
    claim = farm.claimed()
    farm.lose(claim)
    assert farm.fail(claim) is JobState.FAILED
    assert farm.attempts(job_id) == [(1, "failed")]


def test_a_silent_holder_that_was_replaced_is_recorded_as_lost(farm):
    job_id = farm.submit()
    farm.lose(farm.claimed("worker-1"))
    second = farm.claimed("worker-2")
    assert (second.fence, second.attempt) == (2, 2)
    farm.finish(second)
    assert farm.attempts(job_id) == [(1, "lost"), (2, "complete")]


def test_resume_and_claim_at_once_have_one_winner(farm):
    for number in range(12):
        farm.submit(number)
        claim = farm.claimed("worker-1")
        farm.lose(claim)
        renewed, second = together([partial(farm.renew, claim), partial(farm.claim, "worker-2")])
        if second is None:
            assert not isinstance(renewed, Exception)
            farm.finish(claim)
        else:
            # It renewed first and lost the job after all, or came too late: stale from now on.
            assert isinstance(renewed, StaleFenceError)
            with pytest.raises(StaleFenceError):
                farm.finish(claim)
            farm.finish(second)


def test_reapers_at_once_reap_once(farm):
    for number in range(10):
        farm.submit(number)
    ids = [farm.claimed().job_id for _ in range(10)]
    for job_id in ids:
        farm.expire(job_id)
    found = together([farm.reap] * 8)
    assert sorted(job_id for each in found for job_id in each) == ids
    assert all(farm.events(job_id).count("requeued") == 1 for job_id in ids)


def test_renew_and_reap_at_once_leave_the_holder_its_job(farm):
    for number in range(8):
        job_id = farm.submit(number)
        claim = farm.claimed()
        farm.expire(job_id)
        renewed, _ = together([partial(farm.renew, claim), farm.reap])
        assert not isinstance(renewed, Exception)
        farm.finish(claim)
        assert farm.attempts(job_id) == [(1, "complete")]


# --- budgets and backoff ---


def test_a_fault_of_the_job_ends_it_at_once(farm):
    job_id = farm.submit()
    log = values.blob("log")
    assert farm.fail(farm.claimed(), values.failure(message="No such operator.", log=log)) is JobState.FAILED
    job = farm.job(job_id)
    assert job.error is not None
    assert (job.error.code, job.error.message) == ("BUILD_FAILED", "No such operator.")
    assert job.finished_at is not None
    assert [each.log for each in job.attempts or ()] == [log.digest]
    with farm.artifacts() as artifacts:
        assert artifacts.find(log.digest) == log
    assert farm.events(job_id) == ["queued", "started", "failed"]


def test_two_crashes_are_enough(farm):
    job_id = farm.submit()
    assert farm.fail(farm.claimed(), CRASH) is JobState.QUEUED
    assert farm.job(job_id).error is None
    assert farm.fail(farm.claimed(), CRASH) is JobState.FAILED
    assert farm.attempts(job_id) == [(1, "crashed"), (2, "crashed")]
    assert farm.events(job_id) == ["queued", "started", "requeued", "started", "failed"]


def test_three_attempts_are_enough(farm):
    job_id = farm.submit()
    states = [farm.fail(farm.claimed(), LOST_DISK) for _ in range(3)]
    assert states == [JobState.QUEUED, JobState.QUEUED, JobState.FAILED]
    assert farm.attempts(job_id) == [(1, "failed"), (2, "failed"), (3, "failed")]
    assert farm.claim() is None


def test_crashes_and_other_failures_count_apart(farm):
    job_id = farm.submit()
    assert farm.fail(farm.claimed(), CRASH) is JobState.QUEUED
    assert farm.fail(farm.claimed(), LOST_DISK) is JobState.QUEUED
    assert farm.row(job_id).crashes == 1
    assert farm.fail(farm.claimed(), CRASH) is JobState.FAILED
    assert farm.row(job_id).crashes == 2


def test_three_lost_workers_are_enough(farm):
    job_id = farm.submit()
    for _ in range(3):
        farm.lose(farm.claimed())
    job = farm.job(job_id)
    assert job.state is JobState.FAILED
    assert job.error is not None
    assert job.error.code == "WORKER_LOST"
    assert farm.attempts(job_id) == [(1, "lost"), (2, "lost"), (3, "lost")]


def test_a_policy_is_obeyed(farm):
    patient = farm.but(policy=RetryPolicy(max_attempts=5, max_crashes=4, backoff_seconds=0))
    farm.submit()
    states = [patient.fail(patient.claimed(), CRASH) for _ in range(4)]
    assert states == [JobState.QUEUED] * 3 + [JobState.FAILED]


def test_a_release_is_not_charged(farm):
    job_id = farm.submit()
    for round_ in range(5):
        claim = farm.claimed()
        assert (claim.attempt, claim.fence) == (1, 2 * round_ + 1)
        farm.release(claim)
        assert (farm.state(job_id), farm.job(job_id).attempt) == (JobState.QUEUED, 0)
    farm.finish(farm.claimed())
    assert farm.attempts(job_id) == [(1, "released")] * 5 + [(1, "complete")]
    assert farm.events(job_id)[:3] == ["queued", "started", "requeued"]


def test_a_released_job_can_be_claimed_at_once_and_keeps_its_place(farm):
    first = farm.submit(0)
    farm.submit(1)
    patient = farm.but(policy=LATER)
    patient.release(patient.claimed())
    assert patient.claimed().job_id == first


@pytest.mark.parametrize("how", ["failure", "loss"])
def test_each_try_waits_twice_as_long(farm, how):
    patient = farm.but(policy=LATER)
    job_id = farm.submit()
    for wait in (100, 200):
        claim = patient.claimed()
        if how == "failure":
            patient.fail(claim, LOST_DISK)
        else:
            patient.lose(claim)
        assert patient.claim() is None
        assert abs(seconds_until(patient.row(job_id).available_at) - wait) < 5
        patient.change(job_id, available_at=datetime.now(UTC) - timedelta(seconds=1))
    assert patient.claimed().attempt == 3


def test_a_backoff_passes_by_itself(farm):
    quick = farm.but(policy=RetryPolicy(backoff_seconds=0.3))
    farm.submit()
    quick.fail(quick.claimed(), LOST_DISK)
    failed = time.monotonic()
    assert quick.claim() is None
    while (claim := quick.claim()) is None:
        assert time.monotonic() < failed + 10
        time.sleep(0.02)
    assert time.monotonic() - failed > 0.2
    assert claim.attempt == 2


def test_others_go_first_while_a_job_waits(farm):
    patient = farm.but(policy=LATER)
    first, second = farm.submit(0, priority=9), farm.submit(1)
    claim = patient.claimed()
    assert claim.job_id == first
    patient.fail(claim, LOST_DISK)
    assert patient.claimed().job_id == second


# --- what workers say ---


@pytest.mark.parametrize(
    "text", ["a\x00b", "\N{SNOWMAN} \U0001f600", "'; DROP TABLE jobs; --", "x" * 100_000]
)
def test_any_text_of_a_failure_or_a_stage_can_be_kept(farm, text):
    """TensorRT's messages pass through; one that cannot be stored would keep its job running for ever."""
    job_id = farm.submit()
    claim = farm.claimed()
    farm.renew(claim, progress=Progress(stage=text))
    assert farm.fail(claim, values.failure(message=text)) is JobState.FAILED
    error = farm.job(job_id).error
    assert error is not None
    assert error.message.replace("\N{REPLACEMENT CHARACTER}", "\x00") == text
