"""Workers: who is there, and what the farm can build."""

from __future__ import annotations

from sqlalchemy import ColumnElement, Connection, delete, exists, func, insert, select, tuple_, update
from sqlalchemy.orm import aliased

from trtfarm.contract.device import Device
from trtfarm.contract.leases import WorkerInfo
from trtfarm.contract.v1 import WorkerView
from trtfarm.contract.worker import WorkerCondition
from trtfarm_db.base import db_now
from trtfarm_db.models import Job, Worker
from trtfarm_db.models.jobs import IS_RUNNING

ALIVE_SECONDS = 60.0
RECENT_SECONDS = 24 * 3600.0  # who was seen since then belongs to the fleet, though it may be away just now


class WorkerRepository:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def register(self, info: WorkerInfo) -> None:
        self._connection.execute(
            insert(Worker).values(
                id=info.worker_id,
                hostname=info.hostname,
                runtime=info.runtime,
                platform=info.platform,
                gpus=list(info.gpus),
                slots=info.slots,
                device=info.device.model_dump() if info.device else None,
            )
        )

    def seen(
        self, worker_id: str, *, draining: bool = False, condition: WorkerCondition | None = None
    ) -> bool:
        """Whether the farm still knows this worker."""
        told = condition.model_dump(mode="json") if condition else None
        seen = self._connection.execute(
            update(Worker)
            .where(Worker.id == worker_id)
            .values(last_seen_at=db_now(), draining=draining, condition=told)
        )
        return bool(seen.rowcount)

    def stopped(self, worker_id: str) -> None:
        self._connection.execute(update(Worker).where(Worker.id == worker_id).values(stopped_at=db_now()))

    def forget(self, seconds: float) -> int:
        """Those last seen so long ago, and after a day those of whose kind there is a later one.

        Each start of a worker is a row, but what the farm can build and for whom, few rows tell. Returns how
        many it forgot.
        """
        later = aliased(Worker)
        same_kind = (
            later.runtime == Worker.runtime,
            later.platform == Worker.platform,
            later.gpus == Worker.gpus,
        )
        is_later = tuple_(later.last_seen_at, later.id) > tuple_(Worker.last_seen_at, Worker.id)
        needless = (Worker.last_seen_at < db_now(-RECENT_SECONDS)) & exists().where(*same_kind, is_later)
        forgotten = delete(Worker).where((Worker.last_seen_at < db_now(-seconds)) | needless)
        return self._connection.execute(forgotten).rowcount

    def views(self, *, gone: bool = False) -> list[WorkerView]:
        """Those that are there; with ``gone`` all that the farm remembers. Newest first."""
        running = self._running()
        query = select(Worker, is_alive().label("alive")).order_by(Worker.id.desc())
        if not gone:
            query = query.where(Worker.stopped_at.is_(None), Worker.last_seen_at > db_now(-RECENT_SECONDS))
        return [
            WorkerView(
                worker_id=row.id,
                hostname=row.hostname,
                runtime=row.runtime,
                platform=row.platform,
                gpus=tuple(row.gpus),
                slots=row.slots,
                device=Device.model_validate(row.device) if row.device else None,
                running=running.get(row.id, 0),
                alive=bool(row.alive),
                draining=row.draining,
                condition=WorkerCondition.model_validate(row.condition or {}),
                started_at=row.started_at,
                last_seen_at=row.last_seen_at,
            )
            for row in self._connection.execute(query)
        ]

    def _running(self) -> dict[str | None, int]:
        """Jobs by worker."""
        # By itself: joined, PostgreSQL may count once for each worker, by what it believes of the tables.
        count = select(Job.worker_id, func.count().label("jobs")).where(IS_RUNNING).group_by(Job.worker_id)
        return {row.worker_id: row.jobs for row in self._connection.execute(count)}

    def targets(self) -> dict[tuple[str, str, str], bool]:
        """(gpu, runtime, platform) of the workers that the farm remembers; True if one is there now."""
        rows = self._connection.execute(
            select(Worker.gpus, Worker.runtime, Worker.platform, is_alive().label("alive")).distinct()
        )
        served: dict[tuple[str, str, str], bool] = {}
        for row in rows:
            for gpu in row.gpus:
                target = (gpu, row.runtime, row.platform)
                served[target] = served.get(target, False) or bool(row.alive)
        return served

    def served_lately(self) -> frozenset[tuple[str, str, str]]:
        """(gpu, runtime, platform) that the workers of the fleet serve."""
        rows = self._connection.execute(
            select(Worker.gpus, Worker.runtime, Worker.platform)
            .where(Worker.last_seen_at > db_now(-RECENT_SECONDS))
            .distinct()
        )
        return frozenset((gpu, row.runtime, row.platform) for row in rows for gpu in row.gpus)


def is_alive() -> ColumnElement[bool]:
    return Worker.stopped_at.is_(None) & (Worker.last_seen_at > db_now(-ALIVE_SECONDS))
