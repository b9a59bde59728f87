"""How many jobs of an API key may run at a time."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from sqlalchemy import ColumnElement, Connection, Select, false, func, or_, select, update

from trtfarm.contract.jobs import LIVE, Disposition
from trtfarm_db.models import ApiKey, Job, Submission
from trtfarm_db.models.jobs import IS_QUEUED, IS_RUNNING

_AT_ONCE = 8  # keys with a quota that one claim looks at; which ones, chance says


class QuotaRepository:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def of(self, principal: str) -> str:
        """What the jobs of this submitter count against: its key, or nothing."""
        found = self._connection.scalar(
            select(ApiKey.id).where(ApiKey.id == principal, ApiKey.max_running.is_not(None))
        )
        return found or ""

    def open(self, queues: Sequence[str]) -> list[str]:
        """Keys that have a quota and jobs in these queues, and may have one more running."""
        return list(self._connection.execute(_open(tuple(queues))).scalars())

    def limits(self, queues: Sequence[str], most: int) -> dict[str, int]:
        """Quotas that jobs waiting in these queues count against."""
        rows = self._connection.execute(
            select(ApiKey.id, ApiKey.max_running)
            .where(ApiKey.max_running.is_not(None), _waits(queues))
            .order_by(ApiKey.id)
            .limit(most)
        )
        return {row.id: row.max_running for row in rows}

    def exceeded(self, key: str) -> bool:
        """Whether more jobs of a key run than may. Claims for one key wait here for each other."""
        if not key:
            return False
        limit = self._connection.execute(
            select(ApiKey.max_running).where(ApiKey.id == key).with_for_update()
        ).scalar_one_or_none()
        if limit is None:
            return False
        running = self._connection.execute(
            select(func.count()).where(Job.quota == key, IS_RUNNING)
        ).scalar_one()
        return running > limit

    def set(self, key: str, max_running: int | None) -> bool:
        """For what is live and what comes; whether there is such a key."""
        found = self._connection.execute(
            update(ApiKey).where(ApiKey.id == key).values(max_running=max_running)
        ).rowcount
        mine = select(Submission.job_id).where(
            Submission.principal == key, Submission.disposition == Disposition.CREATED
        )
        self._connection.execute(
            update(Job)
            .where(Job.id.in_(mine), Job.state.in_(LIVE))
            .values(quota="" if max_running is None else key)
        )
        return bool(found)


@lru_cache  # asked by every claim
def _open(queues: tuple[str, ...]) -> Select[str]:
    running = select(func.count()).where(Job.quota == ApiKey.id, IS_RUNNING).scalar_subquery()
    return (
        select(ApiKey.id)
        .where(ApiKey.max_running.is_not(None), running < ApiKey.max_running, _waits(queues))
        .order_by(func.random())
        .limit(_AT_ONCE)
    )


def _waits(queues: Sequence[str]) -> ColumnElement[bool]:
    """Whether a job of the key waits in one of these queues.

    The first of each comes from an index; of EXISTS over all queues PostgreSQL makes a join that reads all
    jobs in them.
    """
    firsts = (
        select(Job.id)
        .where(Job.queue == queue, Job.quota == ApiKey.id, IS_QUEUED)
        .order_by(Job.id)
        .limit(1)
        .scalar_subquery()
        for queue in queues
    )
    return or_(false(), *(first.is_not(None) for first in firsts))
