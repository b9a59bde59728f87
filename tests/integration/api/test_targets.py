"""Which runtime a submission gets that names none."""

from __future__ import annotations

from uuid import uuid4

from tests.integration.api.world import World
from trtfarm.contract.leases import WorkerInfo
from trtfarm_db.repositories.workers import WorkerRepository


def register(world: World, runtime: str, *, stopped: bool = False) -> None:
    info = WorkerInfo(
        worker_id=str(uuid4()),
        hostname="host",
        runtime=runtime,
        platform="linux-x86_64",
        gpus=("l40s",),
        slots=1,
    )
    with world.farm.database.transaction() as connection:
        workers = WorkerRepository(connection)
        workers.register(info)
        if stopped:
            workers.stopped(info.worker_id)


def test_the_newest_whose_worker_is_there(world: World) -> None:
    """A version that was tried and withdrawn must not swallow the jobs of those who name none."""
    register(world, "tensorrt-10.9.0.34")
    register(world, "tensorrt-10.16.1.11")
    register(world, "tensorrt-11.4.0.106", stopped=True)
    job = world.job("l40s")
    assert job["target"]["runtime"] == "tensorrt-10.16.1.11"
