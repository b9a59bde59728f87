"""Models that crash TensorRT fail alone: a worker stops for a broken machine, and for nobody's models."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from onnx import TensorProto, helper
from sqlalchemy import delete

from tests import values
from tests.acceptance import models
from tests.acceptance.processes import wait_until
from tests.integration.farm import AT_ONCE, Farm
from trtfarm.contract.jobs import JobState
from trtfarm.contract.leases import WorkerInfo
from trtfarm.contract.models import ModelManifest
from trtfarm.contract.spec import BuildSpec
from trtfarm.contract.worker import Pause
from trtfarm.ring import LocalBell
from trtfarm.store import ArtifactStore, StoreSettings
from trtfarm_db.base import Base
from trtfarm_db.engine import Database
from trtfarm_worker.agent import Agent
from trtfarm_worker.child.process import TensorRTChild
from trtfarm_worker.pauses import Bearing, Breaker
from trtfarm_worker.probe import Probe
from trtfarm_worker.settings import WorkerSettings

SECONDS = 120
FAKE = {
    "child_module": "tests.unit.fake_tensorrt_child",
    "child_variables": ["FAKE_CHILD_START", "FAKE_CHILD_PROBE"],
}


class Works:
    """A farm with a worker of one slot, on a database of its own."""

    def __init__(self, database: Database, folder: Path, stack: ExitStack) -> None:
        self.farm = Farm(database)
        self._folder, self._stack = folder, stack
        self._store = ArtifactStore.open(StoreSettings(url=(folder / "artifacts").as_uri()))
        self._bell = LocalBell()

    def worker(self, **settings: object) -> Agent:
        chosen = {"scratch": self._folder / "scratch", "slots": 1, "idle_poll_seconds": 0.1, "retry": AT_ONCE}
        agent = Agent(
            settings=WorkerSettings.model_validate(chosen | settings),
            database=self.farm.database,
            store=self._store,
            bell=self._bell,
        )
        self.target = values.TARGET.model_copy(update={"runtime": agent.start().runtime})
        self._stack.callback(agent.stop)
        self._bell.listen(agent.wake)
        return agent

    def submit(self, model: bytes, priority: int = 0) -> str:
        digest, _ = self._store.put_bytes(model)
        with self.farm.models() as known:
            known.add(ModelManifest(onnx=digest, onnx_size_bytes=len(model)), values.INFO)
        job = self.farm.create(BuildSpec(model=digest, target=self.target), priority)
        assert job is not None
        self._bell.ring(self.target.queue)
        return job.job_id

    def ended(self, job_id: str) -> JobState:
        return wait_until(
            f"job {job_id} has ended",
            lambda: state if (state := self.farm.state(job_id)).terminal else None,
            SECONDS,
        )


@pytest.fixture
def works(migrated_sqlite: Database, tmp_path: Path) -> Iterator[Works]:
    with migrated_sqlite.transaction() as connection:
        for table in reversed(Base.metadata.sorted_tables):
            connection.execute(delete(table))
    with ExitStack() as stack:
        yield Works(migrated_sqlite, tmp_path, stack)


def crashing(number: int) -> bytes:
    """TensorRT divides by the block size."""
    graph = helper.make_graph(
        [helper.make_node("SpaceToDepth", ["x"], ["y"], blocksize=0, name=f"node{number}")],
        "crashing",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 1, 4, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["a", "b", "c", "d"])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    data: bytes = model.SerializeToString()
    return data


def test_models_that_crash_tensorrt_pause_nobody(works: Works, tmp_path: Path) -> None:
    """The real one. Without a proof of its own, the slot would pause for an hour."""
    agent = works.worker(breaker_crashes=3, breaker_seconds=3600)
    bad = [works.submit(crashing(number)) for number in range(4)]
    for job_id in bad:
        assert works.ended(job_id) is JobState.FAILED
        error = works.farm.job(job_id).error
        assert error is not None
        assert error.code == "BUILD_CRASHED"
    good = works.submit(models.small(tmp_path / "small.onnx", 0).read_bytes())
    assert works.ended(good) is JobState.SUCCEEDED
    assert agent.condition().paused == ()
    assert list((tmp_path / "scratch/probes").iterdir()) == []


def test_the_workers_own_build_works_for_every_gpu(tmp_path: Path) -> None:
    child = TensorRTChild(WorkerSettings(scratch=tmp_path))
    try:
        ready = child.start()
        for gpu in ready.gpus:
            info = WorkerInfo(
                worker_id="w",
                hostname="here",
                runtime=ready.runtime,
                platform="linux-x86_64",
                gpus=(gpu,),
                slots=1,
            )
            assert Probe(info, tmp_path / "probes", lambda: False).passes(child), gpu
    finally:
        child.kill()
    assert list((tmp_path / "probes").iterdir()) == []


def test_a_broken_machine_does_not_burn_the_queue(
    works: Works, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """And goes on by itself when it is mended, with no job risked for that."""
    monkeypatch.setenv("FAKE_CHILD_PROBE", "die")
    agent = works.worker(**FAKE, breaker_crashes=3, breaker_seconds=0.2)
    # Tried in this order, each once more later.
    jobs = [works.submit(b"die" + b" " * number, 9 - number) for number in range(9)]
    wait_until("it pauses", lambda: agent.condition().paused == (Pause.CRASHES,), SECONDS)
    tried = [job_id for job_id in jobs if works.farm.attempts(job_id)]
    assert len(tried) == 3  # two of them twice: that counts once
    attempts = sum(len(works.farm.attempts(job_id)) for job_id in jobs)
    good = works.submit(b"build", 10)
    wait_until("it has tried again", lambda: caplog.text.count("own build failed") > 2, SECONDS)
    assert sum(len(works.farm.attempts(job_id)) for job_id in jobs) == attempts
    assert works.farm.attempts(good) == []
    monkeypatch.setenv("FAKE_CHILD_PROBE", "build")
    assert works.ended(good) is JobState.SUCCEEDED


@pytest.mark.parametrize("behaviour", ["lose_gpu", "no start"])
def test_a_child_that_says_it_is_broken_pauses_at_once(
    works: Works, monkeypatch: pytest.MonkeyPatch, behaviour: str
) -> None:
    monkeypatch.setenv("FAKE_CHILD_PROBE", "lose_gpu")
    agent = works.worker(**FAKE, breaker_crashes=3, breaker_seconds=3600)
    if behaviour == "no start":
        monkeypatch.setenv("FAKE_CHILD_START", "refuse")
        works.submit(b"leave")  # and the child with it
    job_id = works.submit(b"lose_gpu")
    wait_until("it pauses", lambda: agent.condition().paused == (Pause.CRASHES,), SECONDS)
    assert len(works.farm.attempts(job_id)) <= 1


def test_a_child_that_does_not_start_pauses_before_it_costs_a_job(
    works: Works, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = works.worker(**FAKE, child_max_builds=1, breaker_seconds=3600)
    monkeypatch.setenv("FAKE_CHILD_START", "refuse")
    assert works.ended(works.submit(b"build")) is JobState.SUCCEEDED  # by the child that is there, its last
    wait_until("it pauses", lambda: agent.condition().paused == (Pause.CRASHES,), SECONDS)
    job_id = works.submit(b"build ")
    assert works.farm.attempts(job_id) == []


def test_a_model_that_only_speaks_of_a_lost_gpu_pauses_nobody(works: Works) -> None:
    """TensorRT's messages have names from the model in them."""
    agent = works.worker(**FAKE, breaker_seconds=3600)
    for number in range(4):
        assert works.ended(works.submit(b"lose_gpu" + b" " * number)) is JobState.FAILED
    assert works.ended(works.submit(b"build")) is JobState.SUCCEEDED
    assert agent.condition().paused == ()


def test_one_build_that_crashes_again_and_again_raises_no_doubt() -> None:
    breaker = Breaker(3, 60)
    for _ in range(10):
        breaker.record("the same", Bearing.CRASHED)
    assert not breaker.in_doubt
