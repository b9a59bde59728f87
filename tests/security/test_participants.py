"""Who a job runs for: joining, withdrawing, quotas, crashes."""

from __future__ import annotations

import pytest

from tests import values
from tests.integration.farm import Farm
from tests.integration.test_turns import key, limit, submit
from tests.together import together
from trtfarm.contract.jobs import LOCAL, Disposition, JobState, Outcome
from trtfarm.contract.leases import OLDEST_EVERY, AttemptFailure, RetryPolicy
from trtfarm.contract.v1 import ErrorView, JobView
from trtfarm.errors import JobTerminalError, NotFoundError, ScopeMissingError
from trtfarm_db.repositories.jobs import Caller
from trtfarm_db.repositories.participants import PROJECT, Participant, ParticipantRepository
from trtfarm_db.repositories.queues import QueueRepository

CANCELLED = AttemptFailure(outcome=Outcome.CANCELLED, error=ErrorView(code="CANCELLED", message="It was."))


def join(farm: Farm, principal: str, job_id: str) -> JobView | None:
    with farm.jobs() as jobs:
        return jobs.join(Caller(principal), job_id)


def withdraw(farm: Farm, principal: str, job_id: str) -> tuple[JobState, int]:
    with farm.jobs() as jobs:
        job, others = jobs.withdraw(job_id, principal)
    return job.state, others


def participants(farm: Farm, job_id: str) -> list[Participant]:
    with farm.database.transaction() as connection:
        return ParticipantRepository(connection).of(job_id)


def crash(farm: Farm) -> str:
    claim = farm.claimed()
    assert farm.fail(claim, values.failure(Outcome.CRASHED, retryable=True)) is JobState.QUEUED
    return claim.job_id


def test_a_claim_says_on_whose_behalf_it_runs(farm: Farm) -> None:
    mine, theirs = key(farm, None), key(farm, 1)
    submit(farm, mine, 0)
    submit(farm, theirs, 1)
    farm.create(values.spec(2))
    claims = [farm.claimed() for _ in range(3)]
    assert [claim.submitter for claim in claims] == [mine, theirs, LOCAL]


def test_participants_are_stored_with_their_project(farm: Farm) -> None:
    first, second = key(farm, None), key(farm, None)
    job_id = submit(farm, first, 0)
    for _ in range(2):
        join(farm, second, job_id)
    assert participants(farm, job_id) == [Participant(first, PROJECT), Participant(second, PROJECT)]


# --- quotas ---


def test_a_job_is_not_bound_to_the_quota_of_its_first_submitter(farm: Farm) -> None:
    """Who has no limit joins a job of a key that may run nothing: it runs, for the one that has joined."""
    held, free = key(farm, 0), key(farm, None)
    job_id = submit(farm, held, 0)
    assert farm.claim() is None
    join(farm, free, job_id)
    assert farm.claimed().submitter == free


def test_any_participant_with_room_runs_it(farm: Farm) -> None:
    full, other = key(farm, 1), key(farm, 1)
    submit(farm, full, 0)
    shared = submit(farm, full, 1)
    assert farm.claimed().submitter == full
    assert farm.claim() is None
    join(farm, other, shared)
    claim = farm.claimed()
    assert (claim.job_id, claim.submitter) == (shared, other)
    own = submit(farm, other, 2)
    assert farm.claim() is None, "the shared job is charged to it"
    farm.finish(claim)
    assert farm.claimed().job_id == own


def test_nobody_runs_more_than_it_may_by_joining(farm: Farm) -> None:
    """Sixteen workers at once on jobs that two keys share: no more than both may run together."""
    one, two = key(farm, 1), key(farm, 2)
    for number in range(8):
        join(farm, two, submit(farm, one, number))
    together([lambda number=number: farm.claim(f"worker-{number}") for number in range(16)])
    while farm.claim():
        pass
    with farm.database.transaction() as connection:
        running = [job.quota for job in QueueRepository(connection).snapshot(values.QUEUE).running]
    assert sorted(running) == sorted([one, two, two])


def test_a_limit_that_comes_later_counts_for_shared_jobs(farm: Farm) -> None:
    one, two = key(farm, None), key(farm, None)
    shared = submit(farm, one, 0)
    join(farm, two, shared)
    limit(farm, one, 0)
    assert farm.row(shared).submitter == two
    limit(farm, two, 0)
    assert farm.claim() is None
    limit(farm, one, None)
    assert farm.claimed().submitter == one


def test_who_withdraws_takes_its_room_along(farm: Farm) -> None:
    held, free = key(farm, 0), key(farm, None)
    job_id = submit(farm, held, 0)
    join(farm, free, job_id)
    assert withdraw(farm, free, job_id) == (JobState.QUEUED, 1)
    assert farm.claim() is None
    limit(farm, held, 1)
    assert farm.claimed().submitter == held


def test_a_running_job_is_charged_to_who_stays(farm: Farm) -> None:
    gone, stays = key(farm, 1), key(farm, 1)
    job_id = submit(farm, gone, 0)
    join(farm, stays, job_id)
    payer = farm.claimed().submitter
    other = {gone: stays, stays: gone}[payer]
    withdraw(farm, payer, job_id)
    assert farm.row(job_id).submitter == other
    submit(farm, payer, 1)
    submit(farm, other, 2)
    assert farm.claimed().submitter == payer
    assert farm.claim() is None


# --- withdrawing ---


def test_a_job_ends_with_its_last_participant(farm: Farm) -> None:
    one, two = key(farm, None), key(farm, None)
    job_id = submit(farm, one, 0)
    join(farm, two, job_id)
    assert withdraw(farm, one, job_id) == (JobState.QUEUED, 1)
    assert withdraw(farm, one, job_id) == (JobState.QUEUED, 1), "said again, it changes nothing"
    assert withdraw(farm, two, job_id) == (JobState.CANCELLED, 0)
    assert farm.events(job_id) == ["queued", "withdrawn", "withdrawn", "cancelled"]
    with pytest.raises(JobTerminalError):
        withdraw(farm, two, job_id)


def test_a_running_job_ends_with_its_last_participant(farm: Farm) -> None:
    one, two = key(farm, None), key(farm, None)
    job_id = submit(farm, one, 0)
    join(farm, two, job_id)
    claim = farm.claimed()
    withdraw(farm, one, job_id)
    assert not farm.renew(claim).cancel_requested
    assert withdraw(farm, two, job_id) == (JobState.RUNNING, 0)
    assert farm.renew(claim).cancel_requested


def test_a_stranger_neither_cancels_nor_moves_a_job(farm: Farm) -> None:
    mine, stranger = key(farm, None), key(farm, None)
    job_id = submit(farm, mine, 0)
    with pytest.raises(ScopeMissingError, match="not submitted with this key"):
        withdraw(farm, stranger, job_id)
    with pytest.raises(ScopeMissingError), farm.jobs() as jobs:
        jobs.prioritize(job_id, 100, stranger)
    with pytest.raises(NotFoundError):
        withdraw(farm, stranger, "no-such-job")
    assert (farm.state(job_id), farm.job(job_id).priority) == (JobState.QUEUED, 0)


def test_who_has_only_reused_a_plan_takes_no_part(farm: Farm) -> None:
    mine, other = key(farm, None), key(farm, None)
    job_id = submit(farm, mine, 0)
    with farm.jobs() as jobs:
        jobs.add_submission(Caller(other), job_id, Disposition.REUSED)
    assert withdraw(farm, mine, job_id) == (JobState.CANCELLED, 0)


def test_who_joins_what_is_being_cancelled_gets_its_plan(farm: Farm) -> None:
    one, two = key(farm, None), key(farm, None)
    job_id = submit(farm, one, 0)
    claim = farm.claimed()
    withdraw(farm, one, job_id)
    joined = join(farm, two, job_id)
    assert joined is not None
    assert not joined.cancel_requested
    assert farm.fail(claim, CANCELLED) is JobState.QUEUED, "its worker had already heard of it"
    again = farm.claimed()
    assert (again.attempt, again.submitter) == (1, two)
    farm.finish(again)
    assert farm.state(job_id) is JobState.SUCCEEDED


def test_nobody_joins_what_has_ended(farm: Farm) -> None:
    mine, late = key(farm, None), key(farm, None)
    job_id = submit(farm, mine, 0)
    withdraw(farm, mine, job_id)
    assert join(farm, late, job_id) is None
    assert participants(farm, job_id) == []


def test_joining_and_withdrawing_at_once(farm: Farm) -> None:
    """Whoever comes first: a job that somebody has joined is live, or they are told to submit anew."""
    for number in range(10):
        one, two = key(farm, None), key(farm, None)
        job_id = submit(farm, one, number)
        joined, _ = together(
            [lambda two=two, job_id=job_id: join(farm, two, job_id),
             lambda one=one, job_id=job_id: withdraw(farm, one, job_id)]
        )  # fmt: skip
        assert farm.state(job_id) is (JobState.CANCELLED if joined is None else JobState.QUEUED)


# --- crashes ---


def test_what_has_crashed_is_retried_last_and_once(farm: Farm) -> None:
    crasher = farm.submit(0, priority=100)
    assert crash(farm) == crasher
    others = [farm.submit(number, priority=-100) for number in range(1, 4)]
    assert [farm.claimed().job_id for _ in range(4)] == [*others, crasher]
    assert farm.attempts(crasher) == [(1, "crashed"), (2, None)]


def test_a_second_crash_is_the_last(farm: Farm) -> None:
    crasher = farm.submit(0)
    crash(farm)
    claim = farm.claimed()
    assert farm.fail(claim, values.failure(Outcome.CRASHED, retryable=True)) is JobState.FAILED
    assert claim.job_id == crasher


def test_a_crash_loses_its_turn_and_does_not_starve(farm: Farm) -> None:
    """Urgent jobs keep coming; every so many claims take the oldest, and a crash makes a job young."""
    crasher = farm.submit(0)
    patient = [farm.submit(number, priority=-100) for number in range(1, 4)]
    crash(farm)
    done = []
    for number in range(5 * OLDEST_EVERY):
        farm.submit(1000 + number, priority=100)
        claim = farm.claim(oldest=number % OLDEST_EVERY == 0)
        assert claim is not None
        done.append(claim.job_id)
    assert [job_id for job_id in done if job_id in {crasher, *patient}] == [*patient, crasher]


def test_a_failure_that_is_no_crash_keeps_its_place(farm: Farm) -> None:
    first = farm.submit(0)
    farm.submit(1)
    claim = farm.claimed()
    farm.fail(claim, values.failure(Outcome.FAILED, retryable=True))
    assert farm.claimed().job_id == claim.job_id == first


def test_a_crash_is_last_in_the_forecast_too(farm: Farm) -> None:
    farm = farm.but(policy=RetryPolicy(backoff_seconds=0))
    crasher = farm.submit(0, priority=9)
    crash(farm)
    other = farm.submit(1)
    with farm.database.transaction() as connection:
        queues = QueueRepository(connection)
        waiting = queues.snapshot(values.QUEUE).waiting
        assert [job.job_id for job in waiting] == [other, crasher]
        assert queues.ahead([values.QUEUE], 9, crasher) == 1
        assert queues.ahead([values.QUEUE], 0, other) == 0
