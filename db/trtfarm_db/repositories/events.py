"""What happened to jobs, in order."""

from __future__ import annotations

from typing import Any, NamedTuple

from sqlalchemy import Connection, bindparam, func, insert, select

from trtfarm.contract.v1 import JobEvent as Event
from trtfarm_db.models import Job, JobEvent
from trtfarm_db.notices import TELL

# Made once: SQLAlchemy keeps what it has worked out about a statement.
_RECORD = insert(JobEvent)
_RECORD_AND_TELL = _RECORD.returning(TELL)
_LAST = select(func.max(JobEvent.id)).where(JobEvent.job_id == Job.id).scalar_subquery()
_PULSE = select(_LAST, Job.progress).where(Job.id == bindparam("id"))


def record(connection: Connection, job_id: str, kind: str, **data: Any) -> None:
    # Nobody follows a job yet that has just been queued; and PostgreSQL commits notices one after another.
    tell = connection.dialect.name == "postgresql" and kind != "queued"
    statement = _RECORD_AND_TELL if tell else _RECORD
    connection.execute(statement, {"job_id": job_id, "kind": kind, "data": data})


class Pulse(NamedTuple):
    """What differs as soon as anything has happened to a job."""

    last_event: int | None
    progress: Any


def pulse(connection: Connection, job_id: str) -> Pulse:
    row = connection.execute(_PULSE, {"id": job_id}).first()
    return Pulse(*row) if row else Pulse(None, None)


def after(connection: Connection, job_id: str, event_id: int) -> list[Event]:
    rows = connection.execute(
        select(JobEvent).where(JobEvent.job_id == job_id, JobEvent.id > event_id).order_by(JobEvent.id)
    )
    return [Event(id=row.id, job_id=row.job_id, kind=row.kind, at=row.at, data=row.data) for row in rows]
