"""A worker's writes without TensorRT, for figures in which nothing is built."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from uuid import uuid4

from bench.farm import Farm
from trtfarm.contract.digest import Digest
from trtfarm.contract.leases import BuildResult, PublishedBlob, RetryPolicy, WorkerInfo
from trtfarm.contract.target import DEFAULT_PLATFORM, RTX, queue_name
from trtfarm_db.engine import Database
from trtfarm_db.repositories.leases import LeaseRepository
from trtfarm_db.repositories.workers import WorkerRepository

GPUS = ("cc-7.5", "cc-8.0", "cc-8.6", "cc-8.9", "cc-12.0", "cc-12.1")
GPU = "cc-8.9"
LEASE_SECONDS = 60.0
RUNTIME = f"{RTX}-{version('tensorrt-rtx')}"


def register(database: Database) -> WorkerInfo:
    """A worker's row, so that the farm knows which targets it builds for."""
    info = WorkerInfo(
        worker_id=str(uuid4()),
        hostname="stand-in",
        runtime=RUNTIME,
        platform=DEFAULT_PLATFORM,
        gpus=GPUS,
        slots=1,
    )
    with database.transaction() as connection:
        WorkerRepository(connection).register(info)
    return info


def queues(info: WorkerInfo) -> list[str]:
    return [queue_name(info.runtime, gpu) for gpu in info.gpus]


def finish_one(farm: Farm, worker: WorkerInfo, plan: Path) -> Digest:
    """Claims the next job and ends it with the given plan; returns the plan's digest."""
    with plan.open("rb") as file:
        digest = Digest.of_file(file)
    stored = farm.store.put_file(plan, digest, plan.stat().st_size)
    blob = PublishedBlob(digest=digest, size_bytes=stored.size_bytes, etag=stored.etag)
    with farm.database.transaction() as connection:
        leases = LeaseRepository(connection, lease_seconds=LEASE_SECONDS, policy=RetryPolicy())
        claim = leases.claim(queues(worker), worker.worker_id)
        if claim is None:
            raise LookupError("no job is queued")
        leases.finish(claim, BuildResult(plan=blob, io=None, log=None, build_seconds=0.0))
    return digest
