"""The asynchronous client: the same flows, on event loops. What they do is in the tests of the other one."""

from __future__ import annotations

import inspect
import os
import threading
from pathlib import Path

import anyio
import onnx
import pytest

from tests.integration.api.test_client import somebody
from tests.integration.api.test_client_transfers import Counted, large_model
from tests.integration.api.wires import line_to
from tests.integration.api.world import World, onnx_model
from trtfarm.contract.campaign import CampaignModel, CampaignRequest, Changes
from trtfarm.contract.jobs import Disposition, JobState
from trtfarm.contract.v1 import TargetRequest
from trtfarm.errors import FarmUnreachableError, JobTerminalError, NotFoundError, UnknownGpuError
from trtfarm.sdk import transfer
from trtfarm.sdk.aio import AsyncFarmClient
from trtfarm.sdk.campaigns import AsyncCampaigns, Campaigns
from trtfarm.sdk.client import FarmClient

pytestmark = pytest.mark.anyio
MIB = 1 << 20


@pytest.fixture(params=["asyncio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_both_clients_have_the_same_methods() -> None:
    def methods(kind: type) -> dict[str, list[inspect.Parameter]]:
        found = {name: each for name, each in vars(kind).items() if not name.startswith("_")}
        return {name: list(inspect.signature(each).parameters.values()) for name, each in found.items()}

    ours, theirs = methods(AsyncFarmClient), methods(FarmClient)
    assert ours.pop("aclose") == theirs.pop("close")
    assert ours == theirs


async def test_the_whole_loop(world: World, tmp_path: Path) -> None:
    async with AsyncFarmClient(world.url) as farm:
        data = onnx_model()
        made = await farm.build(data, "cc-8.9")
        assert made.disposition is Disposition.CREATED
        jobs = farm.follow(made)
        assert (await anext(jobs)).state is JobState.QUEUED
        world.finish(world.claim(made.job.job_id), b"the plan of the async loop")
        assert [job.state async for job in jobs][-1] is JobState.SUCCEEDED
        done = await farm.wait(made)
        assert done.plan
        path = await farm.pull(done.plan, tmp_path / "out.plan")
        assert path.read_bytes() == b"the plan of the async loop"
        again = await farm.build(onnx.load_from_string(data), "cc-8.9")
        assert again.disposition is Disposition.REUSED
        with pytest.raises(UnknownGpuError):
            await farm.build(done.model, "rtx-4099")
        with pytest.raises(JobTerminalError):
            await farm.cancel(made)


async def test_several_as_they_complete(world: World) -> None:
    async with AsyncFarmClient(world.url) as farm:
        made = [await farm.build(onnx_model(), "cc-8.9") for _ in range(3)]
        first, second, third = (each.job.job_id for each in made)
        world.finish(world.claim(second), b"ended first")
        ended = []
        async for job in farm.as_completed([*made, third]):
            ended.append(job.job_id)
            if job.job_id == second:
                await farm.cancel(third)
                world.finish(world.claim(first), b"ended last")
        assert ended[0] == second
        assert sorted(ended) == sorted([first, second, third])
        with pytest.raises(NotFoundError, match="no job nothing"):
            [job async for job in farm.as_completed([first, "nothing"])]


async def test_over_a_broken_line(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Uploads and downloads resume, and no event is missed."""
    monkeypatch.setattr(transfer, "_PIECE_BYTES", 300_000)
    path, manifest = large_model(tmp_path, 2 * MIB)
    counted, received = Counted(), Counted()
    plan = world.built(os.urandom(4 * MIB))
    with line_to(world.url, 700_000, 2) as line:
        async with AsyncFarmClient(line.url) as farm:
            assert await farm.upload(path, counted) == manifest.digest
            assert counted.total == counted.most == manifest.size_bytes
            await farm.pull(plan.digest, tmp_path / "plan", received)
            assert received.total == received.most == 4 * MIB
    with line_to(world.url) as line:
        async with AsyncFarmClient(line.url) as farm:
            made = await farm.build(onnx_model(), "cc-8.9")
            jobs = farm.follow(made)
            assert (await anext(jobs)).state is JobState.QUEUED
            line.cut()
            claim = world.claim(made.job.job_id)
            threading.Timer(0.3, line.mend).start()
            assert (await anext(jobs)).state is JobState.RUNNING
            world.finish(claim, b"over a broken line, asynchronously")
            assert [job.state async for job in jobs][-1] is JobState.SUCCEEDED


async def test_a_cancelled_follower_lets_go(world: World) -> None:
    """The loop goes on meanwhile, and the connection is closed."""
    async with AsyncFarmClient(world.url) as farm:
        made = await farm.build(onnx_model(), "cc-8.9")
        with anyio.move_on_after(0.5) as scope:
            await farm.wait(made)
        assert scope.cancelled_caught
        assert (await farm.cancel(made)).state is JobState.CANCELLED
        assert [job.state async for job in farm.follow(made)][-1] is JobState.CANCELLED


async def test_somebody_else_answers() -> None:
    with somebody(200, b"<html></html>", "text/html") as url:
        async with AsyncFarmClient(url) as farm:
            with pytest.raises(FarmUnreachableError, match="not as a trtfarm does"):
                await farm.wait("x")
            with pytest.raises(FarmUnreachableError, match="not as a trtfarm does"):
                await farm.fleet()


def test_campaigns_of_both_clients_have_the_same_methods() -> None:
    def methods(kind: type) -> dict[str, list[inspect.Parameter]]:
        found = {name: each for name, each in vars(kind).items() if not name.startswith("_")}
        return {name: list(inspect.signature(each).parameters.values()) for name, each in found.items()}

    assert methods(AsyncCampaigns) == methods(Campaigns)


async def test_a_campaign(world: World) -> None:
    async with AsyncFarmClient(world.url) as farm:
        digest = await farm.upload(onnx_model())
        request = CampaignRequest(
            name="async",
            models=(CampaignModel(model=digest),),
            targets=(TargetRequest(gpu="cc-8.9"),),
        )
        made = await farm.campaigns.submit(request)
        seen = farm.campaigns.follow("async")
        assert (await anext(seen)).coverage.live == 1
        assert made.cells[0].job_id
        world.finish(world.claim(made.cells[0].job_id), b"the plan of the async campaign")
        assert [view.coverage.covered async for view in seen][-1] == 1
        assert (await farm.campaigns.wait(made.campaign_id)).coverage.complete
        assert (await farm.campaigns.fill("async")).changes == Changes(
            added=0, removed=0, created=0, joined=0, reused=1
        )
        assert "async" in [each.name for each in (await farm.campaigns.page()).campaigns]
        assert (await farm.campaigns.coverage(model=digest, check=True)).coverage.covered == 1
        assert (await farm.campaigns.cancel("async")).ended == 0
