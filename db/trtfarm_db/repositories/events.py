"""What happened to jobs, in order."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, insert, select

from trtfarm.contract.v1 import JobEvent as Event
from trtfarm_db.models import JobEvent

_RECORD = insert(JobEvent)  # made once: SQLAlchemy keeps what it has worked out about a statement


def record(connection: Connection, job_id: str, kind: str, **data: Any) -> None:
    connection.execute(_RECORD, {"job_id": job_id, "kind": kind, "data": data})


def after(connection: Connection, job_id: str, event_id: int) -> list[Event]:
    rows = connection.execute(
        select(JobEvent).where(JobEvent.job_id == job_id, JobEvent.id > event_id).order_by(JobEvent.id)
    )
    return [Event(id=row.id, job_id=row.job_id, kind=row.kind, at=row.at, data=row.data) for row in rows]
