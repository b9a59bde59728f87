"""Many builds at once, on both databases."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable

from sqlalchemy import select

from tests import values
from tests.integration.farm import Farm
from trtfarm.contract.jobs import Disposition, JobState
from trtfarm.contract.leases import AttemptFailure
from trtfarm.contract.v1 import ErrorView
from trtfarm_db.models import Submission
from trtfarm_db.repositories.batches import BatchCaller, BatchRepository
from trtfarm_db.repositories.cancelling import CancelRepository
from trtfarm_db.repositories.jobs import Caller, NewJob

ONE, OTHER = BatchCaller("someone", "campaign-1"), BatchCaller("someone", "campaign-2")


def wanted(numbers: Iterable[int], priority: int = 0) -> list[NewJob]:
    return [NewJob(values.spec(number), priority, 60.0) for number in numbers]


def submit(
    farm: Farm,
    numbers: Iterable[int],
    *,
    caller: BatchCaller = ONE,
    priority: int = 0,
    distrusted: Collection[str] = (),
    retry_refused: bool = False,
) -> list[Disposition | None]:
    """What became of each, in the order asked."""
    news = wanted(numbers, priority)
    with farm.database.transaction() as connection:
        done = BatchRepository(connection).submit(
            news, caller, distrusted=distrusted, retry_refused=retry_refused
        )
    return [done[new.key] for new in news]


def job_of(farm: Farm, number: int) -> str:
    key = values.spec(number).build_key
    with farm.database.transaction() as connection:
        return BatchRepository(connection).known([key])[key].job_id


def refuse(farm: Farm, code: str = "UNSUPPORTED_ON_TARGET") -> None:
    error = ErrorView(code=code, message="No.")
    farm.fail(farm.claimed(), AttemptFailure(outcome=values.failure().outcome, error=error))


def cancel(farm: Farm, origin_id: str = "campaign-1") -> tuple[int, int, int]:
    """How many jobs have ended, are asked to, and go on for others."""
    with farm.database.transaction() as connection:
        done = CancelRepository(connection).withdraw_all(origin_id)
    return len(done.ended), len(done.asked), len(done.shared)


def test_more_than_a_statement_takes(farm: Farm) -> None:
    """In the order declared, each with its event and its submission."""
    numbers = range(1201)
    assert set(submit(farm, numbers, priority=3)) == {Disposition.CREATED}
    keys = [new.key for new in wanted(numbers)]
    with farm.database.transaction() as connection:
        known = BatchRepository(connection).known(keys)
        submissions = connection.execute(select(Submission)).all()
    ids = [known[key].job_id for key in keys]
    assert ids == sorted(ids)
    assert {each.priority for each in known.values()} == {3}
    assert farm.events(ids[-1]) == ["queued"]
    assert Counter(row.origin_id for row in submissions) == {"campaign-1": 1201}
    assert farm.claimed().job_id == ids[0]
    assert cancel(farm) == (1200, 1, 0)


def test_created_joined_reused(farm: Farm) -> None:
    assert submit(farm, [0, 1]) == [Disposition.CREATED] * 2
    farm.finish(farm.claimed())
    assert submit(farm, [0, 1, 2], caller=OTHER) == [
        Disposition.REUSED, Disposition.JOINED, Disposition.CREATED,
    ]  # fmt: skip
    assert submit(farm, [0, 0]) == [Disposition.REUSED] * 2


def test_a_campaign_submits_a_job_once(farm: Farm) -> None:
    for _ in range(3):
        submit(farm, [0])
    submit(farm, [0], caller=OTHER)
    with farm.database.transaction() as connection:
        rows = connection.execute(select(Submission.origin_id, Submission.disposition)).all()
    assert sorted(tuple(row) for row in rows) == [("campaign-1", "created"), ("campaign-2", "joined")]


def test_what_was_refused_is_not_tried_again(farm: Farm) -> None:
    submit(farm, [0])
    refuse(farm)
    refused = job_of(farm, 0)
    assert submit(farm, [0, 1]) == [None, Disposition.CREATED]
    assert job_of(farm, 0) == refused
    assert submit(farm, [0], retry_refused=True) == [Disposition.CREATED]
    assert job_of(farm, 0) != refused


def test_what_failed_for_another_reason_is(farm: Farm) -> None:
    submit(farm, [0])
    refuse(farm, "BUILD_TIMEOUT")
    assert submit(farm, [0]) == [Disposition.CREATED]


def test_a_plan_that_is_lost_is_built_again(farm: Farm) -> None:
    submit(farm, [0])
    claim = farm.claimed()
    farm.finish(claim)
    assert submit(farm, [0], distrusted=[claim.job_id]) == [Disposition.CREATED]
    assert submit(farm, [0], distrusted=[claim.job_id]) == [Disposition.JOINED]


def test_the_job_that_speaks_for_a_build(farm: Farm) -> None:
    """The live one, else the newest with a plan, else the newest."""
    key = values.spec(0).build_key

    def known() -> tuple[str, JobState, bool]:
        with farm.database.transaction() as connection:
            found = BatchRepository(connection).known([key, "0" * 64])[key]
        return found.job_id, found.state, found.plan_is_there

    submit(farm, [0])
    refuse(farm)
    first = job_of(farm, 0)
    assert known() == (first, JobState.FAILED, False)
    second = farm.submit(0)
    assert known() == (second, JobState.QUEUED, False)
    farm.finish(farm.claimed())
    assert known() == (second, JobState.SUCCEEDED, True)
    third = farm.submit(0)
    assert known()[0] == third
    farm.cancel(third)
    assert known() == (second, JobState.SUCCEEDED, True)
    with farm.artifacts() as artifacts:
        artifacts.remove(values.blob("plan").digest)
    assert known() == (second, JobState.SUCCEEDED, False)


def test_a_priority_is_raised_and_never_lowered(farm: Farm) -> None:
    submit(farm, [0, 1], priority=1)
    running = farm.claimed()
    submit(farm, [0, 1], priority=9)
    submit(farm, [0, 1], priority=-9)
    assert (farm.job(running.job_id).priority, farm.job(job_of(farm, 1)).priority) == (1, 9)
    assert farm.events(job_of(farm, 1)) == ["queued", "prioritized"]


def test_cancel_leaves_what_others_wait_for(farm: Farm) -> None:
    submit(farm, range(4))
    running = farm.claimed()
    submit(farm, [1], caller=OTHER)
    theirs = job_of(farm, 2)
    with farm.jobs() as jobs:
        jobs.add_submission(Caller("a person"), theirs, Disposition.JOINED)
    assert cancel(farm) == (1, 1, 2)
    assert cancel(farm) == (0, 0, 0)
    assert farm.job(running.job_id).cancel_requested
    ended = farm.job(job_of(farm, 3))
    assert (ended.state, farm.events(ended.job_id)) == (JobState.CANCELLED, ["queued", "cancelled"])
    assert farm.events(running.job_id) == ["queued", "started", "cancel_requested"]
    assert farm.events(theirs) == ["queued", "withdrawn"]
    assert cancel(farm, "campaign-2") == (1, 0, 0)
    assert farm.state(theirs) is JobState.QUEUED


def test_cancel_closes_an_attempt_whose_lease_had_run_out(farm: Farm) -> None:
    submit(farm, [0])
    claim = farm.claimed()
    farm.lose(claim)
    assert cancel(farm) == (1, 0, 0)
    assert farm.attempts(claim.job_id) == [(1, "lost")]


def test_what_was_withdrawn_is_joined_again(farm: Farm) -> None:
    submit(farm, [0])
    submit(farm, [0], caller=OTHER)
    assert cancel(farm) == (0, 0, 1)
    assert submit(farm, [0]) == [Disposition.JOINED]
    assert cancel(farm, "campaign-2") == (0, 0, 1)
    assert cancel(farm) == (1, 0, 0)
