"""The append-only record of who tried what."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, select, update

from trtfarm.contract.jobs import Outcome
from trtfarm_db.base import db_now
from trtfarm_db.models import Attempt


def close_attempts(
    connection: Connection,
    job_id: str,
    outcome: Outcome,
    *,
    error: dict[str, Any] | None = None,
    log: str | None = None,
) -> None:
    """Closes the open attempt of a job, if there is one."""
    connection.execute(
        update(Attempt)
        .where(Attempt.job_id == job_id, Attempt.ended_at.is_(None))
        .values(outcome=outcome.value, ended_at=db_now(), error=error, log_digest=log)
    )


def attempt_outcome(connection: Connection, job_id: str, fence: int) -> Outcome | None:
    """How that attempt ended; None if it has not, or there is none."""
    found = connection.execute(
        select(Attempt.outcome).where(Attempt.job_id == job_id, Attempt.fence == fence)
    ).scalar()
    return Outcome(found) if found else None
