"""How many jobs of an API key may run at a time.

Each quota is a set of keys, nearly always of one, and open while one of them has room. Jobs that count
against none have the empty one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

from sqlalchemy import ColumnElement, Connection, Select, false, func, or_, select, update

from trtfarm_db.base import dialect_insert
from trtfarm_db.models import ApiKey, Job, QuotaMember
from trtfarm_db.models.jobs import IS_QUEUED, IS_RUNNING

_AT_ONCE = 8  # quotas that one claim looks at; which ones, chance says
_LOCK = 0x7472_7175  # "trqu": with a key's hash, one claim for it at a time


class Limits(NamedTuple):
    """``keys``: how many jobs each may have running. ``payers``: by quota, the key that has the most."""

    keys: Mapping[str, int]
    payers: Mapping[str, str]


class QuotaRepository:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def of(self, principal: str) -> str:
        """What jobs of this submitter alone count against: its key, or nothing."""
        found = self._connection.scalar(
            select(ApiKey.id).where(ApiKey.id == principal, ApiKey.max_running.is_not(None))
        )
        return self.of_keys([found]) if found else ""

    def of_keys(self, keys: Collection[str]) -> str:
        """What jobs count against that each of these keys has submitted."""
        members = sorted(keys)
        quota = members[0] if len(members) == 1 else _name(members)
        # Never taken back: a job that is just being queued may refer to it.
        self._connection.execute(
            dialect_insert(self._connection.dialect.name, QuotaMember).on_conflict_do_nothing(),
            [{"quota": quota, "key_id": key} for key in members],
        )
        return quota

    def open(self, queues: Sequence[str]) -> list[str]:
        """Quotas with jobs in these queues, of which one more may run."""
        return list(self._connection.execute(_open(tuple(queues))).scalars())

    def limits(self, queues: Sequence[str], most: int) -> Limits:
        """The quotas of what waits in these queues."""
        quotas = select(QuotaMember.quota).distinct().subquery()
        waiting = select(quotas.c.quota).where(_waits(queues, quotas.c.quota)).order_by(quotas.c.quota)
        rows = self._connection.execute(
            select(QuotaMember.quota, ApiKey.id, ApiKey.max_running)
            .join(ApiKey, ApiKey.id == QuotaMember.key_id)
            .where(QuotaMember.quota.in_(waiting.limit(most)), ApiKey.max_running.is_not(None))
            .order_by(ApiKey.max_running, ApiKey.id)
        ).all()
        return Limits({row.id: row.max_running for row in rows}, {row.quota: row.id for row in rows})

    def charge(self, job_id: str, quota: str) -> str | None:
        """The key that a job, just claimed, is charged to from now on; None if none of its keys has room.

        Claims for one key wait here for each other, until their transactions end.
        """
        members = self._connection.execute(
            select(ApiKey.id, ApiKey.max_running)
            .join(QuotaMember, QuotaMember.key_id == ApiKey.id)
            .where(QuotaMember.quota == quota)
            .order_by(ApiKey.id)  # all lock them in one order
        ).all()
        for key, limit in members:
            if limit is None or self._has_room(key, limit, job_id):
                self._connection.execute(update(Job).where(Job.id == job_id).values(submitter=key))
                return str(key)
        return None

    def _has_room(self, key: str, limit: int, job_id: str) -> bool:
        if self._connection.dialect.name == "postgresql":  # SQLite has one writer
            self._connection.execute(select(func.pg_advisory_xact_lock(_LOCK, func.hashtext(key))))
        running = select(func.count()).where(Job.submitter == key, IS_RUNNING, Job.id != job_id)
        return self._connection.execute(running).scalar_one() < limit


def _name(keys: Sequence[str]) -> str:
    return "+" + hashlib.sha256(" ".join(keys).encode()).hexdigest()[:15]


@lru_cache  # asked by every claim
def _open(queues: tuple[str, ...]) -> Select[str]:
    quotas = select(QuotaMember.quota).distinct().subquery()
    running = select(func.count()).where(Job.submitter == ApiKey.id, IS_RUNNING).scalar_subquery()
    members = (QuotaMember.quota == quotas.c.quota, QuotaMember.key_id == ApiKey.id)
    may = ApiKey.max_running.is_(None) | (running < ApiKey.max_running)
    # A column by name: a worker may not read all of a key, and EXISTS (SELECT *) asks for that.
    has_room = select(ApiKey.id).where(*members, may).exists()
    return (
        select(quotas.c.quota)
        .where(has_room, _waits(queues, quotas.c.quota))
        .order_by(func.random())
        .limit(_AT_ONCE)
    )


def _waits(queues: Sequence[str], quota: ColumnElement[str]) -> ColumnElement[bool]:
    """Whether a job that counts against the quota waits in one of these queues.

    The first of each comes from an index; of EXISTS over all queues PostgreSQL makes a join that reads all
    jobs in them.
    """
    firsts = (
        select(Job.id)
        .where(Job.queue == queue, Job.quota == quota, IS_QUEUED)
        .order_by(Job.turn)
        .limit(1)
        .scalar_subquery()
        for queue in queues
    )
    return or_(false(), *(first.is_not(None) for first in firsts))
