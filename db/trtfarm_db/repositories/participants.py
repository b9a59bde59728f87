"""Who a job runs for, and to whom its attempts are charged.

A submission that created or joined a job makes its submitter a participant until it is withdrawn. A job is
charged to a participant that has no limit of running jobs, if there is one. Any other counts against a quota,
which is a set of keys: one of them that has room is charged when the job is claimed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row, exists, select, update
from sqlalchemy.orm import aliased

from trtfarm.contract.jobs import LIVE, Disposition
from trtfarm_db.base import in_batches
from trtfarm_db.models import ApiKey, Job, Submission
from trtfarm_db.repositories.events import record
from trtfarm_db.repositories.quotas import QuotaRepository

PROJECT = "default"
TAKES_PART = (
    Submission.disposition.in_([Disposition.CREATED, Disposition.JOINED]),
    Submission.withdrawn_at.is_(None),
)


class Participant(NamedTuple):
    principal: str
    project: str


class ParticipantRepository:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def of(self, job_id: str) -> list[Participant]:
        """In the order in which they came."""
        rows = self._connection.execute(
            select(Submission.principal, Submission.project)
            .where(Submission.job_id == job_id, *TAKES_PART)
            .order_by(Submission.id)
        )
        return list(dict.fromkeys(Participant(*row) for row in rows))

    def took_part(self, job_id: str, principal: str) -> bool:
        """Also one that has withdrawn."""
        mine = select(Submission.id).where(
            Submission.job_id == job_id,
            Submission.principal == principal,
            Submission.disposition != Disposition.REUSED,
        )
        return self._connection.execute(mine.limit(1)).first() is not None

    def submitted_for(self, origin_id: str, job_ids: Sequence[str]) -> set[str]:
        """Those of the jobs that were submitted for this campaign or standing order before."""
        return set(
            self._connection.scalars(
                select(Submission.job_id).where(
                    Submission.origin_id == origin_id, Submission.job_id.in_(job_ids)
                )
            )
        )

    def joined(self, job_ids: Iterable[str]) -> None:
        """Keeps locked jobs that somebody has joined: nobody cancels them any more, and more may pay."""
        for some in in_batches(job_ids):
            asked = Job.cancel_requested_at.is_not(None)
            changed = select(Job).where(Job.id.in_(some), asked | (Job.quota != ""))
            for job in self._connection.execute(changed).all():
                if job.cancel_requested_at is not None:
                    again = update(Job).where(Job.id == job.id).values(cancel_requested_at=None)
                    self._connection.execute(again)
                    record(self._connection, job.id, "wanted_again")
                self.settle(job)

    def settle(self, job: Row[Any]) -> None:
        """What a job, locked, counts against and is charged to, now that its participants have changed."""
        names = [each.principal for each in self.of(job.id)]
        if not names:
            return
        limited = set(
            self._connection.scalars(
                select(ApiKey.id).where(ApiKey.id.in_(names), ApiKey.max_running.is_not(None))
            )
        )
        free = [name for name in names if name not in limited]
        quota = "" if free else QuotaRepository(self._connection).of_keys(limited)
        payers = free or names
        submitter = job.submitter if job.submitter in payers else payers[0]
        if (quota, submitter) != (job.quota, job.submitter):
            self._connection.execute(
                update(Job).where(Job.id == job.id).values(quota=quota, submitter=submitter)
            )

    def limit(self, key: str, max_running: int | None) -> bool:
        """Another limit of running jobs, for what is live and what comes; whether there is such a key."""
        found = self._connection.execute(
            update(ApiKey).where(ApiKey.id == key).values(max_running=max_running)
        ).rowcount
        quota = QuotaRepository(self._connection).of(key)
        other = aliased(Submission)
        shared = exists().where(
            other.job_id == Job.id,
            other.principal != key,
            other.disposition != Disposition.REUSED,
            other.withdrawn_at.is_(None),
        )
        mine = select(Submission.job_id).where(Submission.principal == key, *TAKES_PART)
        live = (Job.id.in_(mine), Job.state.in_(LIVE))
        self._connection.execute(update(Job).where(*live, ~shared).values(quota=quota))
        for job in self._connection.execute(
            select(Job).where(*live, shared).order_by(Job.id).with_for_update(of=Job)
        ).all():
            self.settle(job)
        return bool(found)
