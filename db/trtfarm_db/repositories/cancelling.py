"""Withdrawing submissions, and ending jobs that nobody waits for any more.

The one home of the rule: who cancels withdraws what is theirs; a job ends with its last participant.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, insert, select, update

from trtfarm.contract.jobs import LIVE, JobState, Outcome
from trtfarm_db.base import db_now, in_batches
from trtfarm_db.models import Attempt, Job, JobEvent, Submission
from trtfarm_db.notices import TELL
from trtfarm_db.repositories.participants import TAKES_PART, ParticipantRepository


@dataclass(frozen=True)
class Cancelled:
    """Jobs that ended here, that were running and were asked to end, and that go on for others."""

    ended: frozenset[str] = frozenset()
    asked: frozenset[str] = frozenset()
    shared: frozenset[str] = frozenset()

    def __add__(self, other: Cancelled) -> Cancelled:
        return Cancelled(self.ended | other.ended, self.asked | other.asked, self.shared | other.shared)


class CancelRepository:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def withdraw(self, job_ids: Iterable[str], *whose: ColumnElement[bool]) -> Cancelled:
        """Withdraws the submissions that ``whose`` selects; ends those jobs that have no others."""
        done = Cancelled()
        for some in in_batches(sorted(job_ids)):
            live = self._locked(some)
            ids = [row.id for row in live]
            self._connection.execute(
                update(Submission)
                .where(Submission.job_id.in_(ids), *TAKES_PART, *whose)
                .values(withdrawn_at=db_now())
            )
            wanted = set(
                self._connection.scalars(
                    select(Submission.job_id).where(Submission.job_id.in_(ids), *TAKES_PART).distinct()
                )
            )
            shared = [row for row in live if row.id in wanted]
            participants = ParticipantRepository(self._connection)
            for row in shared:
                participants.settle(row)
            tell(self._connection, [row.id for row in shared], "withdrawn")
            done += self._end([row for row in live if row.id not in wanted])
            done += Cancelled(shared=frozenset(row.id for row in shared))
        return done

    def withdraw_all(self, origin_id: str) -> Cancelled:
        """What was submitted for a campaign or standing order."""
        mine = select(Submission.job_id).where(Submission.origin_id == origin_id, *TAKES_PART)
        live = select(Job.id).where(Job.id.in_(mine), Job.state.in_(LIVE))
        return self.withdraw(self._connection.scalars(live).all(), Submission.origin_id == origin_id)

    def queued(
        self, *, principal: str | None = None, model: str | None = None, gpu: str | None = None, limit: int
    ) -> Cancelled:
        """At most ``limit`` queued jobs: everyone's end, or one submitter is withdrawn from theirs."""
        query = select(Job.id).where(Job.state == JobState.QUEUED).order_by(Job.id).limit(limit)
        mine = Submission.principal == principal
        if principal is not None:
            query = query.where(Job.id.in_(select(Submission.job_id).where(mine, *TAKES_PART)))
        if model:
            query = query.where(Job.model_digest == model)
        if gpu:
            query = query.where(Job.gpu == gpu)
        # Those that are just being claimed have left the queue.
        ids = list(self._connection.execute(query.with_for_update(skip_locked=True, of=Job)).scalars())
        return self.end(ids) if principal is None else self.withdraw(ids, mine)

    def end(self, job_ids: Iterable[str]) -> Cancelled:
        """Ends live jobs, whoever else waits for them."""
        done = Cancelled()
        for some in in_batches(sorted(job_ids)):
            done += self._end(self._locked(some))
        return done

    def _locked(self, job_ids: Collection[str]) -> Sequence[Row[Any]]:
        """Those that are live; nobody joins or claims them, or puts them back, until the commit."""
        return self._connection.execute(
            select(Job)
            .where(Job.id.in_(job_ids), Job.state.in_(LIVE))
            .order_by(Job.id)  # all lock them in one order
            .with_for_update()
        ).all()

    def _end(self, jobs: Iterable[Row[Any]]) -> Cancelled:
        queued, running = [], []
        for row in jobs:
            if row.state == JobState.QUEUED:
                queued.append(row.id)
            elif row.cancel_requested_at is None:
                running.append(row.id)
        if queued:
            self._connection.execute(
                update(Job)
                .where(Job.id.in_(queued))
                .values(
                    state=JobState.CANCELLED.value,
                    fence=Job.fence + 1,
                    cancel_requested_at=db_now(),
                    finished_at=db_now(),
                )
            )
            self._connection.execute(  # attempts whose lease had run out
                update(Attempt)
                .where(Attempt.job_id.in_(queued), Attempt.ended_at.is_(None))
                .values(outcome=Outcome.LOST.value, ended_at=db_now())
            )
        if running:
            self._connection.execute(
                update(Job).where(Job.id.in_(running)).values(cancel_requested_at=db_now())
            )
        tell(self._connection, queued, "cancelled")
        tell(self._connection, running, "cancel_requested")
        return Cancelled(ended=frozenset(queued), asked=frozenset(running))


def tell(connection: Connection, job_ids: Iterable[str], kind: str, **data: Any) -> None:
    """An event of each job."""
    rows = [{"job_id": job_id, "kind": kind, "data": data} for job_id in job_ids]
    if not rows:
        return
    statement = insert(JobEvent)
    if connection.dialect.name == "postgresql":
        statement = statement.returning(TELL)
    connection.execute(statement, rows)
