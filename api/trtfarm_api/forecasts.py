"""Positions and expected times of live jobs, worked out once for many who ask."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from typing import NamedTuple

from trtfarm.contract.forecast import Forecast, Outlook, QueueSnapshot, beyond, outlook
from trtfarm.contract.jobs import JobState
from trtfarm.contract.v1 import JobView
from trtfarm_db.engine import Database
from trtfarm_db.repositories.queues import COUNTED, HORIZON, QueueRepository

_SECONDS = 1.0  # how old an answer may be
_SHARE = 20  # or so many times as old as all took to work out: at most 5 % of the time goes into it
_AT_LEAST = 4  # for a job that came or began since: 20 %


class _Known(NamedTuple):
    """
    Attributes:
        took: seconds, to work it out.
        renewable: from when on it is worth working out anew for a job that it does not know.
        ahead: of jobs far back, how many come before them.
    """

    took: float
    renewable: float
    until: float
    snapshot: QueueSnapshot
    outlook: Outlook
    ahead: dict[str, int]

    def serves(self, job: JobView, now: float) -> bool:
        return now < (self.until if self.knows(job) else self.renewable)

    def knows(self, job: JobView) -> bool:
        """False: the job has come, or has begun, since."""
        if job.job_id in self.outlook.forecasts:
            return (job.job_id in self.outlook.positions) == (job.state is JobState.QUEUED)
        return job.state is JobState.QUEUED and not self.snapshot.whole and not self._early(job)

    def _early(self, job: JobView) -> bool:
        last = self.snapshot.waiting[-1]
        return (-job.priority, job.job_id) < (-last.priority, last.job_id)


class Forecasts:
    """Of one API process; an answer may be a second old, or some in a large farm."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lock = threading.Lock()
        self._known: dict[str, _Known] = {}

    def add_to(self, job: JobView) -> JobView:
        """The job with its position and forecast, if it is live."""
        return self._added(job, count=True)

    def add_to_all(self, jobs: Iterable[JobView]) -> list[JobView]:
        """As ``add_to``; jobs far back in a queue only learn that they are."""
        return [self._added(job, count=False) for job in jobs]

    def _added(self, job: JobView, *, count: bool) -> JobView:
        if job.state.terminal:
            return job
        known = self._read(job)
        found = known.outlook.forecasts.get(job.job_id)
        position = known.outlook.positions.get(job.job_id)
        if job.state is JobState.QUEUED and found is None and not known.snapshot.whole:
            position, found = self._far_back(job, known, count=count)
        elif (job.state is JobState.QUEUED) != (position is not None):
            position, found = None, None  # it has begun since, or is back in its queue
        return job.model_copy(update={"queue_position": position, "forecast": found})

    def _far_back(self, job: JobView, known: _Known, *, count: bool) -> tuple[int, Forecast]:
        ahead, at_least = HORIZON, True
        if count:
            ahead = self._counted(job, known)
            at_least = ahead >= COUNTED
        return ahead, beyond(known.outlook, known.snapshot.slots, ahead, at_least=at_least)

    def _counted(self, job: JobView, known: _Known) -> int:
        if job.job_id not in known.ahead:
            with self._database.transaction() as connection:
                queues = QueueRepository(connection)
                known.ahead[job.job_id] = queues.ahead(known.snapshot.queues, job.priority, job.job_id)
        return known.ahead[job.job_id]

    def _read(self, job: JobView) -> _Known:
        """One works it out anew; others make do with the last answer meanwhile, if it has their job."""
        known = self._known.get(job.queue)
        if known is not None and known.serves(job, time.monotonic()):
            return known
        if known is not None and known.knows(job):
            if not self._lock.acquire(blocking=False):
                return known
        else:
            self._lock.acquire()
        try:
            known = self._known.get(job.queue)
            if known is not None and known.serves(job, time.monotonic()):
                return known
            return self._worked_out(job.queue)
        finally:
            self._lock.release()

    def _worked_out(self, queue: str) -> _Known:
        started = time.monotonic()
        with self._database.transaction() as connection:
            snapshot = QueueRepository(connection).snapshot(queue)
        told = outlook(snapshot)
        ended = time.monotonic()
        took = ended - started
        others = {each.snapshot.queues: each.took for each in self._known.values() if ended < each.until}
        all_took = sum((others | {snapshot.queues: took}).values())
        known = _Known(
            took=took,
            renewable=ended + _AT_LEAST * all_took,
            until=ended + max(_SECONDS, _SHARE * all_took),
            snapshot=snapshot,
            outlook=told,
            ahead={},
        )
        for each in snapshot.queues:
            self._known[each] = known
        return known
