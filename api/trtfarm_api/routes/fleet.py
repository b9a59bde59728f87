"""Workers and queues."""

from __future__ import annotations

from collections import defaultdict

from fastapi import APIRouter

from trtfarm.contract.jobs import JobState, Scope
from trtfarm.contract.target import queue_name
from trtfarm.contract.v1 import FleetView, QueueView, WorkerView
from trtfarm_api.auth import scoped
from trtfarm_api.documents import DocumentRoute
from trtfarm_api.farm import FarmDep
from trtfarm_db.repositories.jobs import JobRepository
from trtfarm_db.repositories.workers import WorkerRepository

router = APIRouter(
    prefix="/v1/fleet", tags=["fleet"], dependencies=[scoped(Scope.READ)], route_class=DocumentRoute
)


@router.get("")
def get_fleet(farm: FarmDep) -> FleetView:
    """Workers that are there, and queues that they serve or that have live jobs."""
    with farm.database.transaction() as connection:
        workers = WorkerRepository(connection).views()
        counts = JobRepository(connection).counts()
    by_queue: dict[str, dict[JobState, int]] = defaultdict(dict)
    for queue, state, count in counts:
        by_queue[queue][state] = count
    serving: dict[str, list[WorkerView]] = defaultdict(list)
    for worker in workers:
        for gpu in worker.gpus if worker.claims else ():
            serving[queue_name(worker.runtime, gpu)].append(worker)
    queues = tuple(
        QueueView(
            queue=queue,
            queued=by_queue[queue].get(JobState.QUEUED, 0),
            running=by_queue[queue].get(JobState.RUNNING, 0),
            workers=len(serving[queue]),
            slots=sum(worker.slots for worker in serving[queue]),
        )
        for queue in sorted(by_queue.keys() | serving.keys())
    )
    return FleetView(workers=tuple(workers), queues=queues)
