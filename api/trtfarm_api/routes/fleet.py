"""Workers and queues."""

from __future__ import annotations

from collections import defaultdict

from fastapi import APIRouter

from trtfarm.contract.jobs import JobState, Scope
from trtfarm.contract.v1 import FleetView, QueueView
from trtfarm_api.auth import scoped
from trtfarm_api.farm import FarmDep
from trtfarm_db.repositories.jobs import JobRepository
from trtfarm_db.repositories.workers import WorkerRepository

router = APIRouter(prefix="/v1/fleet", tags=["fleet"], dependencies=[scoped(Scope.READ)])


@router.get("")
def get_fleet(farm: FarmDep) -> FleetView:
    """Workers that are there, and queues with live jobs."""
    with farm.database.transaction() as connection:
        workers = WorkerRepository(connection).views()
        counts = JobRepository(connection).counts()
    by_queue: dict[str, dict[JobState, int]] = defaultdict(dict)
    for queue, state, count in counts:
        by_queue[queue][state] = count
    queues = tuple(
        QueueView(
            queue=queue,
            queued=states.get(JobState.QUEUED, 0),
            running=states.get(JobState.RUNNING, 0),
        )
        for queue, states in sorted(by_queue.items())
    )
    return FleetView(workers=tuple(workers), queues=queues)
