"""Who is claimed when: the oldest job's turn, quotas, other priorities, many cancelled at once."""

from __future__ import annotations

from collections import Counter

import pytest

from tests import values
from tests.integration.farm import Farm
from tests.together import together
from trtfarm.contract.jobs import Disposition, JobState, Scope
from trtfarm.contract.leases import OLDEST_EVERY, Claim
from trtfarm.errors import ConflictError, JobTerminalError, NotFoundError
from trtfarm_db.repositories.cancelling import CancelRepository
from trtfarm_db.repositories.jobs import Caller, JobRepository, NewJob
from trtfarm_db.repositories.keys import KeyRepository
from trtfarm_db.repositories.queues import QueueRepository

OTHER = values.TARGET.model_copy(update={"gpu": "cc-12.0", "compute_capability": "12.0"})
QUEUES = (values.QUEUE, OTHER.queue)


def key(farm: Farm, max_running: int | None) -> str:
    with farm.database.transaction() as connection:
        return KeyRepository(connection).create("somebody", Scope.SUBMIT, max_running)[0]


def limit(farm: Farm, principal: str, max_running: int | None) -> None:
    with farm.database.transaction() as connection:
        KeyRepository(connection).limit(principal, max_running)


def submit(farm: Farm, principal: str, number: int, priority: int = 0, target=values.TARGET) -> str:
    with farm.database.transaction() as connection:
        jobs = JobRepository(connection)
        job = jobs.create(NewJob(values.spec(number, target=target), priority, 60.0), principal)
        assert job is not None
        jobs.add_submission(Caller(principal), job.job_id, Disposition.CREATED)
        return job.job_id


# --- the oldest job's turn ---


def test_the_oldest_whatever_its_priority(farm):
    old = farm.create(values.spec(0, target=OTHER), priority=-100)
    ids = [farm.submit(number, priority=number) for number in range(1, 4)]
    claims = [farm.claim(queues=QUEUES, oldest=oldest) for oldest in (False, True, True, False)]
    assert [claim.job_id for claim in claims] == [ids[2], old.job_id, ids[0], ids[1]]


def test_no_priority_starves_another(farm):
    """Urgent jobs keep coming, as many as are claimed: the others go on, in the order they came in."""
    patient = [farm.submit(number, priority=-100) for number in range(5)]
    done = []
    for number in range(5 * OLDEST_EVERY):
        farm.submit(1000 + number, priority=100)
        done.append(farm.claim(oldest=number % OLDEST_EVERY == 0).job_id)
    assert [job_id for job_id in done if job_id in patient] == patient
    assert done.index(patient[4]) <= 4 * OLDEST_EVERY


# --- quotas ---


def test_a_key_with_a_quota_leaves_the_slots_to_others(farm):
    greedy, modest = key(farm, 2), key(farm, None)
    theirs = [submit(farm, greedy, number, priority=50) for number in range(5)]
    ours = [submit(farm, modest, number + 10) for number in range(2)]
    claims = [farm.claimed() for _ in range(4)]
    assert [claim.job_id for claim in claims] == theirs[:2] + ours
    assert farm.claim() is None
    assert farm.claim(oldest=True) is None
    farm.finish(claims[0])
    assert farm.claimed().job_id == theirs[2]
    assert farm.claim() is None


def test_a_quota_holds_over_all_queues(farm):
    greedy = key(farm, 1)
    submit(farm, greedy, 0)
    submit(farm, greedy, 1, target=OTHER)
    assert farm.claim(queues=[OTHER.queue]) is not None
    assert farm.claim(queues=[values.QUEUE]) is None


def test_what_is_requeued_or_lost_frees_its_place(farm):
    greedy = key(farm, 1)
    first = submit(farm, greedy, 0)
    submit(farm, greedy, 1)
    farm.lose(farm.claimed())
    claim = farm.claimed()
    assert claim.job_id == first
    assert farm.claim() is None
    farm.release(claim)
    assert farm.claimed().job_id == first


def test_a_new_quota_counts_for_jobs_that_are_there(farm):
    greedy = key(farm, None)
    ids = [submit(farm, greedy, number) for number in range(4)]
    claims = [farm.claimed() for _ in range(2)]
    limit(farm, greedy, 1)
    assert farm.claim() is None
    farm.finish(claims[0])
    assert farm.claim() is None
    farm.finish(claims[1])
    assert farm.claimed().job_id == ids[2]
    limit(farm, greedy, None)
    assert farm.claimed().job_id == ids[3]
    with pytest.raises(NotFoundError):
        limit(farm, "nobody", 1)


def test_16_workers_at_once_keep_to_the_quotas(farm):
    greedy = [key(farm, 1), key(farm, 3)]
    for number in range(10):
        for which, principal in enumerate(greedy):
            submit(farm, principal, number + 100 * which)
    free = [farm.submit(number + 1000) for number in range(6)]
    found: list[Claim | None] = together(
        [lambda number=number: farm.claim(f"worker-{number}") for number in range(16)]
    )
    with farm.database.transaction() as connection:
        quotas = QueueRepository(connection).snapshot(values.QUEUE)
    running = Counter(job.quota for job in quotas.running)
    assert running[""] == len(free)
    for principal, most in zip(greedy, (1, 3), strict=True):
        # Whose claim another's has forestalled goes on without that key; next time it is there.
        assert 1 <= running[principal] <= most
    assert sum(running.values()) == sum(claim is not None for claim in found)
    while farm.claim():
        pass
    with farm.database.transaction() as connection:
        running = Counter(job.quota for job in QueueRepository(connection).snapshot(values.QUEUE).running)
    assert running == {"": 6, greedy[0]: 1, greedy[1]: 3}


def test_a_job_knows_that_it_waits_for_its_quota(farm):
    greedy = key(farm, 1)
    submit(farm, greedy, 0)
    waits = submit(farm, greedy, 1)
    farm.claimed()
    with farm.database.transaction() as connection:
        found = QueueRepository(connection).snapshot(values.QUEUE)
    assert found.quotas == {greedy: 1}
    assert [(job.job_id, job.quota) for job in found.waiting] == [(waits, greedy)]


# --- other priorities ---


def test_another_priority(farm):
    first, second = farm.submit(0), farm.submit(1)
    with farm.jobs() as jobs:
        assert jobs.prioritize(second, 7).priority == 7
    assert farm.claimed().job_id == second
    assert farm.events(second) == ["queued", "prioritized", "started"]
    with pytest.raises(ConflictError, match="runs already"), farm.jobs() as jobs:
        jobs.prioritize(second, 1)
    farm.cancel(first)
    with pytest.raises(JobTerminalError), farm.jobs() as jobs:
        jobs.prioritize(first, 1)
    with pytest.raises(NotFoundError), farm.jobs() as jobs:
        jobs.prioritize("no-such-job", 1)


# --- many cancelled ---


def test_all_that_wait_are_cancelled(farm):
    mine, theirs = key(farm, None), key(farm, None)
    running = submit(farm, mine, 0)
    farm.claimed()
    wait = [submit(farm, mine, number) for number in range(1, 4)]
    elsewhere = submit(farm, mine, 5, target=OTHER)
    other = submit(farm, theirs, 6)

    def cancel(**which: str | None) -> int:
        with farm.database.transaction() as connection:
            return len(CancelRepository(connection).queued(limit=2, **which).ended)

    assert [cancel(principal=mine, gpu="cc-8.9") for _ in range(3)] == [2, 1, 0]
    assert {farm.state(job_id) for job_id in wait} == {JobState.CANCELLED}
    assert farm.events(wait[0]) == ["queued", "cancelled"]
    assert farm.state(elsewhere) is JobState.QUEUED
    assert cancel(model="sha256:" + "0" * 64) == 0
    assert cancel() == 2
    assert farm.state(other) is JobState.CANCELLED
    assert farm.state(running) is JobState.RUNNING
