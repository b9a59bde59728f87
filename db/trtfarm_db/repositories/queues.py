"""Queues as those see them who wait in them. Every query is bounded, however long the queues are."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import JSON, ColumnElement, Connection, Select, func, literal, select, type_coerce, union_all

from trtfarm.contract.forecast import QueueSnapshot, Running, Waiting, Work
from trtfarm.contract.jobs import JobKind
from trtfarm.contract.target import queue_name
from trtfarm_db.base import db_now
from trtfarm_db.models import Job, Worker
from trtfarm_db.models.jobs import IS_QUEUED, IS_RUNNING, IS_SUCCEEDED
from trtfarm_db.repositories.quotas import Limits, QuotaRepository
from trtfarm_db.repositories.workers import is_alive

HORIZON = 1000  # jobs whose turn is worked out one by one
COUNTED = 10_000  # jobs that are at least counted
_MODELS = 64  # that are asked for times of their own; the others count as their target's
_SAMPLES = 20
_QUOTAS = 16  # API keys with a quota whose jobs are seen


class QueueRepository:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def snapshot(self, queue: str) -> QueueSnapshot:
        """This queue and the others that its workers serve."""
        queues, slots = self._pool(queue)
        limits = QuotaRepository(self._connection).limits(queues, _QUOTAS)
        now = self._connection.execute(select(db_now())).scalar_one()
        running = self._running(queues, limits, now)
        waiting = self._waiting(queues, limits, now)
        return QueueSnapshot(
            queues=queues,
            slots=slots,
            running=running,
            waiting=waiting[:HORIZON],
            whole=len(waiting) <= HORIZON,
            quotas=limits.keys,
            history=self._history([job.work for job in running] + [job.work for job in waiting[:HORIZON]]),
        )

    def ahead(self, queues: Sequence[str], priority: int, job_id: str) -> int:
        """Queued jobs that come before this one; counting ends at ``COUNTED``."""
        limits = QuotaRepository(self._connection).limits(queues, _QUOTAS)
        counted = (Job.queue.in_(queues), Job.quota.in_(["", *limits.payers]), IS_QUEUED)
        crashes = self._connection.scalar(select(Job.crashes).where(Job.id == job_id)) or 0
        as_often = (*counted, Job.crashes == crashes)
        before = union_all(
            select(literal(1).label("one")).where(*counted, Job.crashes < crashes),
            select(literal(1)).where(*as_often, Job.priority > priority),
            select(literal(1)).where(*as_often, Job.priority == priority, Job.id < job_id),
        ).subquery()
        some = select(before).limit(COUNTED).subquery()
        return self._connection.execute(select(func.count()).select_from(some)).scalar_one()

    def _pool(self, queue: str) -> tuple[tuple[str, ...], int]:
        """The queues that share workers with this one, and the slots of those workers that claim jobs."""
        rows = self._connection.execute(
            select(Worker.runtime, Worker.gpus, func.sum(Worker.slots - _paused_slots()).label("slots"))
            .where(is_alive(), Worker.draining.is_(False))
            .group_by(Worker.runtime, Worker.gpus)
        )
        queues, slots = {queue}, 0
        for row in rows:
            served = {queue_name(row.runtime, gpu) for gpu in row.gpus}
            if queue in served:
                queues |= served
                slots += row.slots
        return tuple(sorted(queues)), slots

    def _running(self, queues: tuple[str, ...], limits: Limits, now: datetime) -> tuple[Running, ...]:
        rows = self._connection.execute(
            select(Job.id, Job.queue, Job.kind, Job.model_digest, Job.started_at, Job.submitter).where(
                IS_RUNNING, Job.queue.in_(queues) | Job.submitter.in_(list(limits.keys))
            )
        )
        return tuple(
            Running(
                row.id,
                _work(row),
                (now - row.started_at).total_seconds(),
                row.submitter if row.submitter in limits.keys else "",
            )
            for row in rows
            if row.started_at is not None
        )

    def _waiting(self, queues: tuple[str, ...], limits: Limits, now: datetime) -> tuple[Waiting, ...]:
        """One more than the horizon, if there are so many."""
        work = (Job.queue, Job.kind, Job.model_digest)
        columns = (Job.id, *work, Job.crashes, Job.priority, Job.available_at, Job.quota)
        order = (Job.crashes, Job.priority.desc(), Job.id)
        heads = [
            select(*columns)
            .where(Job.queue == queue, Job.quota == quota, IS_QUEUED)
            .order_by(*order)
            .limit(HORIZON + 1)
            .subquery()
            for queue, quota in itertools.product(queues, ("", *limits.payers))
        ]
        merged = union_all(*(select(head) for head in heads)).subquery()
        rows = self._connection.execute(
            select(merged)
            .order_by(merged.c.crashes, merged.c.priority.desc(), merged.c.id)
            .limit(HORIZON + 1)
        )
        return tuple(
            Waiting(
                row.id,
                _work(row),
                row.priority,
                max(0.0, (row.available_at - now).total_seconds()),
                limits.payers.get(row.quota, ""),
            )
            for row in rows
        )

    def _history(self, works: Iterable[Work]) -> dict[Work, list[float]]:
        """Of the commonest models, and of every target: the seconds of the newest jobs that succeeded."""
        commonest = [work for work, _ in Counter(works).most_common(_MODELS)]
        asked = list(dict.fromkeys([*commonest, *(work.target for work in commonest)]))
        if not asked:
            return {}
        found: dict[Work, list[float]] = defaultdict(list)
        for row in self._connection.execute(
            union_all(*(select(_newest(number, work).subquery()) for number, work in enumerate(asked)))
        ):
            found[asked[row.number]].append((row.finished_at - row.started_at).total_seconds())
        return found


def _newest(number: int, work: Work) -> Select[Any]:
    mine = [Job.queue == work.queue, Job.kind == work.kind, IS_SUCCEEDED]
    if work.model is not None:
        mine.append(Job.model_digest == work.model)
    columns: tuple[Any, ...] = (literal(number).label("number"), Job.started_at, Job.finished_at)
    return select(*columns).where(*mine).order_by(Job.id.desc()).limit(_SAMPLES)


def _work(row: Any) -> Work:
    return Work(row.queue, JobKind(row.kind), row.model_digest)


def _paused_slots() -> ColumnElement[int]:
    """As the worker told it; 0 before it has told anything."""
    told = type_coerce(Worker.condition, JSON)["paused_slots"].as_integer()
    return func.coalesce(told, 0)
