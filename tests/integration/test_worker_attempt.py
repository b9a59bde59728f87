"""Attempts from claim to effect, on a real database and a real store, with a child that misbehaves."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests import values
from tests.acceptance.processes import alive
from tests.integration.farm import AT_ONCE, WORKER, Farm
from trtfarm.contract.digest import Digest
from trtfarm.contract.jobs import JobState
from trtfarm.contract.leases import Claim
from trtfarm.contract.models import ModelManifest
from trtfarm.store import ArtifactStore, StoreSettings
from trtfarm_worker.attempt import Attempt
from trtfarm_worker.child.process import TensorRTChild
from trtfarm_worker.delivery import Delivery
from trtfarm_worker.model_cache import ModelCache
from trtfarm_worker.outbox import Outbox
from trtfarm_worker.pauses import Bearing
from trtfarm_worker.settings import WorkerSettings
from trtfarm_worker.spool import Spool
from trtfarm_worker.work import Workshop

MODULE = "tests.unit.fake_tensorrt_child"
SECONDS = 20


class Shop:
    """One slot of a worker. What its child does is written in the model."""

    def __init__(self, farm: Farm, folder: Path) -> None:
        self.farm = farm
        self.stopping = threading.Event()
        self.store = ArtifactStore.open(StoreSettings(url=(folder / "artifacts").as_uri()))
        self.folder = folder / "spool"
        settings = WorkerSettings.model_validate(
            {
                "scratch": folder,
                "child_module": MODULE,
                "child_variables": ["FAKE_CHILD_START"],
                "child_start_seconds": 20,
                "heartbeat_seconds": 0.05,
                "retry": AT_ONCE,
            }
        )
        self.child = TensorRTChild(settings)
        spool, delivery = Spool(self.folder), Delivery(self.store, farm.database, settings)
        self.workshop = Workshop(
            worker_id=WORKER,
            spool=spool,
            delivery=delivery,
            outbox=Outbox(spool, delivery, settings, WORKER),
            settings=settings,
            database=farm.database,
            store=self.store,
            models=ModelCache(folder / "models", self.store, 10**9),
            device=None,
            stopping=self.stopping.is_set,
        )

    def change(self, **settings: float) -> None:
        changed = self.workshop.settings.model_copy(update=settings)
        self.workshop = dataclasses.replace(self.workshop, settings=changed)

    def claim(self, behaviour: str, timeout_seconds: float = 60) -> Claim:
        digest, _ = self.store.put_bytes(behaviour.encode())
        manifest = ModelManifest(onnx=digest, onnx_size_bytes=len(behaviour))
        with self.farm.models() as models:
            models.add(manifest, values.INFO)
        assert self.farm.create(values.spec(model=digest)) is not None
        return self.farm.claimed().model_copy(update={"timeout_seconds": timeout_seconds})

    def run(self, claim: Claim) -> None:
        Attempt(self.workshop, claim, self.child).run()
        assert not list(self.folder.iterdir())

    @contextmanager
    def running(self, claim: Claim) -> Iterator[None]:
        """The attempt goes on while the block runs, and has ended after it."""
        thread = threading.Thread(target=self.run, args=(claim,))
        thread.start()
        yield
        thread.join(SECONDS)
        assert not thread.is_alive()


@pytest.fixture
def shop(farm: Farm, tmp_path: Path) -> Iterator[Shop]:
    shop = Shop(farm, tmp_path)
    yield shop
    shop.child.kill()


def code_of(shop: Shop, claim: Claim) -> str:
    """Of the last attempt's error."""
    error = (shop.farm.job(claim.job_id).attempts or ())[-1].error
    assert error is not None
    return error.code


def test_a_build_gives_a_plan_its_description_and_its_log(shop: Shop) -> None:
    claim = shop.claim("build")
    shop.run(claim)
    (plan,) = shop.farm.all_plans()
    assert plan.digest == Digest.of_bytes(b"plan")
    assert shop.store.read(plan.digest) == b"plan"
    assert plan.io is not None
    assert shop.store.read(plan.io) == b"{}"
    assert plan.log is not None
    assert shop.farm.job(claim.job_id).build_seconds == 0.1


@pytest.mark.parametrize("behaviour", ["die SIGSEGV", "leave", "garbage", "orphan"])
def test_a_crash_is_tried_once_more(shop: Shop, behaviour: str) -> None:
    claim = shop.claim(behaviour)
    shop.run(claim)
    assert shop.farm.state(claim.job_id) is JobState.QUEUED
    assert code_of(shop, claim) == "BUILD_CRASHED"
    shop.run(shop.farm.claimed())
    assert shop.farm.state(claim.job_id) is JobState.FAILED
    assert shop.farm.attempts(claim.job_id) == [(1, "crashed"), (2, "crashed")]


def test_a_refusal_is_final(shop: Shop) -> None:
    claim = shop.claim("refuse")
    shop.run(claim)
    job = shop.farm.job(claim.job_id)
    assert job.state is JobState.FAILED
    assert job.error is not None
    assert job.error.code == "BUILD_FAILED"


def test_a_child_that_does_not_start_is_not_the_jobs_fault(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim = shop.claim("build")
    monkeypatch.setenv("FAKE_CHILD_START", "refuse")
    shop.run(claim)
    assert shop.farm.state(claim.job_id) is JobState.QUEUED
    assert code_of(shop, claim) == "CONFIGURATION"
    monkeypatch.delenv("FAKE_CHILD_START")
    shop.run(shop.farm.claimed())
    assert shop.farm.state(claim.job_id) is JobState.SUCCEEDED


@pytest.mark.parametrize("behaviour", ["hang", "flood"])
def test_a_timeout(shop: Shop, behaviour: str) -> None:
    claim = shop.claim(behaviour, timeout_seconds=0.5)
    shop.run(claim)
    assert shop.farm.state(claim.job_id) is JobState.FAILED
    assert code_of(shop, claim) == "BUILD_TIMEOUT"


def test_a_child_that_does_nothing_is_killed_with_its_family_and_tried_once_more(shop: Shop) -> None:
    shop.change(no_progress_seconds=0.5)
    claim = shop.claim("family")
    grandchildren = []
    for state in (JobState.QUEUED, JobState.FAILED):
        with shop.running(claim):
            plan = shop.folder / f"{claim.job_id}.{claim.fence}" / "plan"
            while not (plan.exists() and plan.read_text()):
                time.sleep(0.02)
            grandchildren.append(int(plan.read_text()))
        assert shop.farm.state(claim.job_id) is state
        if state is JobState.QUEUED:
            claim = shop.farm.claimed()
    error = shop.farm.job(claim.job_id).error
    assert error is not None
    assert error.code == "BUILD_STALLED"
    assert shop.farm.attempts(claim.job_id) == [(1, "timeout"), (2, "timeout")]
    assert not any(alive(pid) for pid in grandchildren)


@pytest.mark.parametrize("behaviour", ["calculate 2", "write 2"])
def test_a_child_that_is_silent_but_at_work_is_left_alone(shop: Shop, behaviour: str) -> None:
    shop.change(no_progress_seconds=1)
    claim = shop.claim(behaviour)
    shop.run(claim)
    assert shop.farm.state(claim.job_id) is JobState.SUCCEEDED


@pytest.mark.parametrize("behaviour", ["hang", "flood"])
def test_a_cancelled_job_ends(shop: Shop, behaviour: str) -> None:
    claim = shop.claim(behaviour)
    with shop.running(claim):
        shop.farm.cancel(claim.job_id)
    assert shop.farm.state(claim.job_id) is JobState.CANCELLED
    assert shop.farm.attempts(claim.job_id) == [(1, "cancelled")]


def test_a_worker_that_stops_gives_the_job_back(shop: Shop) -> None:
    claim = shop.claim("hang")
    with shop.running(claim):
        shop.stopping.set()
    assert shop.farm.state(claim.job_id) is JobState.QUEUED
    assert shop.farm.attempts(claim.job_id) == [(1, "released")]


def test_a_superseded_attempt_changes_nothing(shop: Shop) -> None:
    claim = shop.claim("hang")
    shop.farm.lose(claim)
    other = shop.farm.claimed("worker-2")
    shop.run(claim)
    assert shop.farm.attempts(claim.job_id) == [(1, "lost"), (2, None)]
    shop.farm.finish(other)
    assert shop.farm.state(claim.job_id) is JobState.SUCCEEDED


def test_a_full_disk_gives_no_plan_and_is_not_the_jobs_fault(shop: Shop) -> None:
    claim = shop.claim("build")
    folder = shop.folder / f"{claim.job_id}.{claim.fence}"
    folder.mkdir(parents=True)
    (folder / ".manifest.json").symlink_to("/dev/full")
    shop.run(claim)
    assert shop.farm.state(claim.job_id) is JobState.QUEUED
    assert code_of(shop, claim) == "INSUFFICIENT_STORAGE"
    assert shop.farm.all_plans() == []
    shop.run(shop.farm.claimed())
    assert shop.farm.state(claim.job_id) is JobState.SUCCEEDED


@pytest.mark.parametrize(
    ("behaviour", "bearing"),
    [
        ("build", Bearing.SOUND),
        ("refuse", Bearing.SOUND),
        ("die", Bearing.CRASHED),
        ("hang", Bearing.CRASHED),
        ("lose_gpu", Bearing.BROKEN),
    ],
)
def test_how_the_child_bore_it(shop: Shop, behaviour: str, bearing: Bearing) -> None:
    shop.change(no_progress_seconds=0.3)
    assert Attempt(shop.workshop, shop.claim(behaviour), shop.child).run() is bearing


def test_a_child_that_does_not_start_is_broken(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_CHILD_START", "refuse")
    assert Attempt(shop.workshop, shop.claim("build"), shop.child).run() is Bearing.BROKEN


def test_a_log_that_is_far_too_long_loses_its_middle(shop: Shop) -> None:
    shop.change(log_bytes=100_000)
    claim = shop.claim("spill")
    shop.run(claim)
    (plan,) = shop.farm.all_plans()
    assert plan.log is not None
    log = shop.store.read(plan.log)
    assert len(log) <= 100_000
    assert log.startswith(b"first\n")
    assert log.endswith(b"last\n")


def test_a_lost_model_is_told(shop: Shop) -> None:
    claim = shop.claim("build")
    shop.store.delete(claim.spec.model)
    shop.run(claim)
    assert shop.farm.state(claim.job_id) is JobState.FAILED
    assert code_of(shop, claim) == "INPUT_LOST"
