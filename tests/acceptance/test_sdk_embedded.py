"""``Farm`` and ``AsyncFarm`` on embedded farms that change hands."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from tests.acceptance import models
from trtfarm import AsyncFarm, Farm
from trtfarm.contract.jobs import Disposition, JobState
from trtfarm.contract.names import ModelName
from trtfarm.errors import ConfigurationError, ModelError

GPU = "cc-8.9"


def test_a_guest_takes_over(tmp_path: Path) -> None:
    """In the middle of following, from a process that does not build."""
    home, model = tmp_path / "home", models.small(tmp_path / "model.onnx", seed=3)
    with Farm(home=home) as farm:
        digest = farm.upload(model)
        farm.tag(digest, ModelName("small:prod"))
    with Farm(home=home) as guest:
        controller = Farm(home=home, builds=False)
        assert not any(worker.alive for worker in controller.fleet().workers)
        made = guest.build("small:prod", GPU)
        assert made.disposition is Disposition.CREATED
        jobs = guest.follow(made)
        assert next(jobs).state is JobState.QUEUED
        threading.Timer(0.5, controller.close).start()
        assert [job.state for job in jobs][-1] is JobState.SUCCEEDED
        plan = guest.job(made).plan
        assert plan
        path = guest.pull(plan, tmp_path / "small.plan")
        assert guest.plan_path(plan.digest)
        assert path.stat().st_size == plan.size_bytes
        again = guest.build(str(digest), GPU)
        assert again.disposition is Disposition.REUSED


def test_on_an_event_loop(tmp_path: Path) -> None:
    """The loop runs on while the farm starts; and the second is the guest of the first."""

    async def main() -> None:
        model = models.small(tmp_path / "model.onnx", seed=4)
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                await asyncio.sleep(0.01)
                ticks += 1

        ticking = asyncio.create_task(tick())
        async with AsyncFarm(home=tmp_path / "home") as first:
            made = await first.build(model, GPU)
            assert ticks > 10
            async with AsyncFarm(home=tmp_path / "home") as second:
                assert (await second.wait(made)).state is JobState.SUCCEEDED
                with pytest.raises(ModelError):
                    await second.upload(tmp_path / "nothing.onnx")
        ticking.cancel()

    asyncio.run(main())


def test_which_farm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRTFARM_URL", "http://farm.example:8420")
    with Farm() as farm:
        assert (farm.url, farm.here) == ("http://farm.example:8420", None)
    with Farm("http://other.example") as farm:
        assert farm.url == "http://other.example"
    with Farm(home=tmp_path) as farm:
        assert farm.here
        assert farm.here.home.path == tmp_path
    with pytest.raises(ConfigurationError):
        Farm("farm.example")
    assert not list(tmp_path.iterdir()), "nothing is started before the first call"
