"""Finished work that cannot be handed in at once, on a real database and a store that goes away."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.integration.farm import WORKER, Farm
from tests.integration.test_worker_attempt import Shop, code_of
from trtfarm.contract.digest import Digest
from trtfarm.contract.jobs import JobState
from trtfarm.contract.leases import Claim
from trtfarm.errors import StaleFenceError
from trtfarm_api.maintenance.garbage import GarbageCollector
from trtfarm_api.maintenance.settings import MaintenanceSettings
from trtfarm_worker.attempt import Attempt
from trtfarm_worker.child.protocol import Built
from trtfarm_worker.delivery import Delivery
from trtfarm_worker.finished import Effect, Finished
from trtfarm_worker.outbox import Outbox

SECONDS = 20


@pytest.fixture
def shop(farm: Farm, tmp_path: Path) -> Iterator[Shop]:
    shop = Shop(farm, tmp_path)
    yield shop
    shop.child.kill()
    shop.workshop.outbox.stop()


@contextmanager
def store_away(shop: Shop) -> Iterator[None]:
    """A file where its folder was: every request fails, as if its disk were gone."""
    place = shop.folder.parent / "artifacts"
    aside = place.rename(place.with_name("aside"))
    place.touch()
    yield
    place.unlink()
    aside.rename(place)


def built_without_a_store(shop: Shop, behaviour: str = "build") -> Claim:
    """Built, and waiting to be handed in."""
    claim = shop.claim(behaviour)
    manifest_fetched = shop.workshop.models
    with shop.farm.models() as models, manifest_fetched.model(models.manifest(claim.spec.model)):
        pass  # in the worker's cache: the store is not needed to build
    with store_away(shop):
        Attempt(shop.workshop, claim, shop.child).run()
    assert shop.farm.state(claim.job_id) is JobState.RUNNING
    assert shop.workshop.outbox.waiting == 1
    return claim


def a_dead_workers(shop: Shop, claim: Claim, at: float | None = None) -> None:
    """Finished work whose owner is gone."""
    entry = shop.workshop.spool.open(claim)
    (entry.path / "plan").write_bytes(b"plan")
    (entry.path / "io.json").write_bytes(b"{}")
    entry.log_path.write_text("log")
    done = Built(build_seconds=0.1, rss_bytes=1)
    entry.seal(Finished(claim=claim, done=done, at=time.time() if at is None else at))
    entry.leave()


def left(shop: Shop) -> list[str]:
    return [path.name for path in shop.folder.iterdir()]


def until(shop: Shop, state: JobState, claim: Claim) -> None:
    end = time.monotonic() + SECONDS
    while shop.farm.state(claim.job_id) is not state:
        assert time.monotonic() < end, shop.farm.job(claim.job_id)
        shop.workshop.outbox.work_off()
        time.sleep(0.02)


def test_it_is_handed_in_when_the_store_is_back_and_the_slot_goes_on_meanwhile(shop: Shop) -> None:
    claim = built_without_a_store(shop)
    other = shop.claim("refuse")
    Attempt(shop.workshop, other, shop.child).run()
    assert shop.farm.state(other.job_id) is JobState.FAILED
    until(shop, JobState.SUCCEEDED, claim)
    (plan,) = shop.farm.all_plans()
    assert shop.store.read(plan.digest) == b"plan"
    assert plan.log is not None
    assert shop.farm.attempts(claim.job_id) == [(1, "complete")]
    assert left(shop) == []
    assert shop.workshop.outbox.waiting == 0


def test_while_the_store_is_away_it_waits_and_says_so(shop: Shop) -> None:
    claim = built_without_a_store(shop)
    with store_away(shop):
        shop.workshop.outbox.work_off()
        end = time.monotonic() + SECONDS
        while "UNAVAILABLE" not in getattr(shop.farm.job(claim.job_id).progress, "stage", ""):
            assert time.monotonic() < end
            time.sleep(0.02)
        assert shop.workshop.outbox.usage.entries == 1
        assert shop.workshop.outbox.usage.size_bytes > 0
    until(shop, JobState.SUCCEEDED, claim)


def test_what_waited_too_long_is_given_up_and_tried_again(shop: Shop) -> None:
    shop.workshop.settings.__dict__["spool_seconds"] = 0  # frozen for everybody else
    claim = built_without_a_store(shop)
    with store_away(shop):
        shop.workshop.outbox.work_off()
    assert shop.farm.state(claim.job_id) is JobState.QUEUED
    assert code_of(shop, claim) == "UNAVAILABLE"
    assert left(shop) == []


def test_a_refusal_waits_as_well(shop: Shop) -> None:
    claim = built_without_a_store(shop, "refuse")
    until(shop, JobState.FAILED, claim)
    assert code_of(shop, claim) == "BUILD_FAILED"
    assert left(shop) == []


def test_a_superseded_one_is_dropped(shop: Shop) -> None:
    claim = built_without_a_store(shop)
    shop.farm.lose(claim)
    # Its heartbeat takes the job back unless another worker is quicker.
    shop.farm.change(claim.job_id, fence=claim.fence + 1)
    end = time.monotonic() + SECONDS
    while shop.workshop.outbox.waiting:
        assert time.monotonic() < end
        shop.workshop.outbox.work_off()
    assert left(shop) == []
    assert shop.farm.all_plans() == []


def test_a_cancelled_one_ends_at_once(shop: Shop) -> None:
    claim = built_without_a_store(shop)
    shop.farm.cancel(claim.job_id)
    with store_away(shop):
        until(shop, JobState.CANCELLED, claim)
    assert left(shop) == []


@pytest.mark.parametrize("reaped", [False, True])
def test_a_dead_workers_work_is_taken_over_before_anybody_can_repeat_it(shop: Shop, reaped: bool) -> None:
    claim = shop.claim("build")
    a_dead_workers(shop, claim)
    if reaped:
        shop.farm.lose(claim)
    shop.workshop.outbox.start()
    assert shop.farm.state(claim.job_id) in {JobState.RUNNING, JobState.SUCCEEDED}
    assert shop.farm.claim() is None
    until(shop, JobState.SUCCEEDED, claim)
    assert shop.farm.attempts(claim.job_id) == [(1, "complete")]
    assert left(shop) == []


def test_one_that_took_effect_before_its_worker_died_takes_none_again(shop: Shop) -> None:
    claim = shop.claim("build")
    a_dead_workers(shop, claim)
    shop.farm.finish(claim)
    before = shop.farm.all_plans()
    shop.workshop.outbox.work_off()
    assert shop.farm.all_plans() == before
    assert left(shop) == []


def test_a_dead_workers_work_that_was_repeated_meanwhile_is_discarded(shop: Shop) -> None:
    claim = shop.claim("build")
    a_dead_workers(shop, claim)
    shop.farm.lose(claim)
    shop.farm.claimed("worker-2")
    shop.workshop.outbox.work_off()
    assert left(shop) == []
    assert shop.farm.attempts(claim.job_id) == [(1, "lost"), (2, None)]
    with pytest.raises(StaleFenceError):
        shop.farm.renew(claim)


def test_damaged_files_are_noticed_and_the_job_is_tried_again(shop: Shop) -> None:
    claim = shop.claim("build")
    a_dead_workers(shop, claim)
    (shop.folder / f"{claim.job_id}.1" / "plan").write_bytes(b"plaN")
    shop.workshop.outbox.work_off()
    assert shop.farm.state(claim.job_id) is JobState.QUEUED
    assert code_of(shop, claim) == "WORKER_IO"
    assert left(shop) == []
    assert shop.store.stat(Digest.of_bytes(b"plaN")) is None


def test_another_farms_work_is_left_alone_until_it_is_too_old(shop: Shop) -> None:
    claim = shop.claim("build").model_copy(update={"job_id": "of-another-farm"})
    a_dead_workers(shop, claim)
    shop.workshop.outbox.work_off()
    assert left(shop) == ["of-another-farm.1"]
    (again,) = shop.workshop.spool.adopt()  # it is not kept locked either
    again.leave()
    a_dead_workers(shop, claim, at=time.time() - shop.workshop.settings.spool_seconds - 1)
    shop.workshop.outbox.work_off()
    assert left(shop) == ["of-another-farm.1"]  # known as a stranger
    later = Outbox(shop.workshop.spool, shop.workshop.delivery, shop.workshop.settings, WORKER)
    later.work_off()
    assert left(shop) == []


def test_what_is_collected_before_it_is_committed_is_published_again(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A blob without a row is garbage; without any grace, at once."""
    claim = shop.claim("build")
    collector = GarbageCollector(shop.farm.database, shop.store, MaintenanceSettings(grace_hours=0))
    collected, commit = [], Delivery.commit

    def commit_later(delivery: Delivery, finished: Finished, effect: Effect) -> None:
        if not collected:
            collected.append(collector.run().artifacts)
        commit(delivery, finished, effect)

    monkeypatch.setattr(Delivery, "commit", commit_later)
    Attempt(shop.workshop, claim, shop.child).run()
    assert collected == [3]  # plan, description, log
    assert shop.farm.state(claim.job_id) is JobState.SUCCEEDED
    assert shop.farm.attempts(claim.job_id) == [(1, "complete")]
    collector.run()
    (plan,) = shop.farm.all_plans()
    assert shop.store.read(plan.digest) == b"plan"
    assert all(digest and shop.store.stat(digest) for digest in (plan.io, plan.log))
    assert left(shop) == []
