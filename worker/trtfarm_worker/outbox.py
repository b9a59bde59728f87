"""Finished work that could not be handed in at once: it is tried again in the background, its lease alive.

It comes from this worker's slots, which go on meanwhile, and from workers that died on this scratch folder.
"""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass

from trtfarm.contract.jobs import Outcome
from trtfarm.contract.leases import AttemptFailure
from trtfarm.contract.v1 import ErrorView, Progress
from trtfarm.errors import DatabaseUnavailableError, StaleFenceError, TrtFarmError
from trtfarm_worker.delivery import LATER, Delivery
from trtfarm_worker.finished import Finished
from trtfarm_worker.heartbeat import Heartbeat
from trtfarm_worker.settings import WorkerSettings
from trtfarm_worker.spool import Entry, Spool, Usage

_log = logging.getLogger(__name__)
_TRY_SECONDS = 2.0
_JOIN_SECONDS = 10.0
_DEFECTS = 5  # unexpected failures of one delivery, before it is given up


@dataclass
class _Waiting:
    entry: Entry
    finished: Finished
    heartbeat: Heartbeat
    defects: int = 0


class Outbox:
    """Owns what waits in the spool, from ``adopt`` or ``add`` on."""

    def __init__(self, spool: Spool, delivery: Delivery, settings: WorkerSettings, worker_id: str) -> None:
        self._spool = spool
        self._delivery = delivery
        self._settings = settings
        self._worker_id = worker_id
        self._lock = threading.Lock()
        self._waiting: list[_Waiting] = []
        self._strangers: set[str] = set()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="outbox", daemon=True)
        self.usage = Usage(0, 0)  # of the whole folder, other workers' part included

    @property
    def waiting(self) -> int:
        """How many of this worker's own and adopted attempts are not handed in."""
        return len(self._waiting)

    @property
    def waiting_bytes(self) -> int:
        return sum(file.size_bytes for each in list(self._waiting) for file in each.finished.files.values())

    def start(self) -> None:
        """Takes over what dead workers left *before* it returns: its leases are renewed, so that nobody, this
        worker included, claims and repeats a job that is done.

        Raises:
            OSError: the spool cannot be used.
            DatabaseUnavailableError: leases could not be renewed; nothing is lost.
        """
        self._adopt()
        self._thread.start()

    def add(self, entry: Entry, finished: Finished) -> None:
        """Takes over the entry."""
        # Without its GPU: that is free for the next job.
        renew = self._delivery.renewal(finished.claim, self._worker_id, None)
        heartbeat = Heartbeat(renew, self._settings.heartbeat_seconds)
        heartbeat.progress(Progress(stage="waiting to hand in the result"))
        heartbeat.start()
        with self._lock:
            self._waiting.append(_Waiting(entry, finished, heartbeat))
        self.usage = self._spool.usage()

    def stop(self) -> None:
        """Leaves what waits to the next worker on this scratch folder."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(_JOIN_SECONDS)
        for each in self._waiting:
            each.heartbeat.stop()
            each.entry.leave()
        if self._waiting:
            _log.warning(
                "%d finished jobs stay in %s for the next worker there",
                len(self._waiting),
                self._spool.folder,
            )

    def _run(self) -> None:
        while not self._stopping.wait(_TRY_SECONDS):
            try:
                self.work_off()
            except Exception:  # noqa: BLE001 - what waits must not wait for a restart
                _log.exception("the spool could not be worked off")

    def work_off(self) -> None:
        """Tries once to hand in all that waits. The thread does so again and again."""
        try:
            self._adopt()
            for each in list(self._waiting):
                self._hand_in(each)
        except DatabaseUnavailableError:
            _log.debug("the database does not answer; what waits is tried again")
        finally:
            self.usage = self._spool.usage()

    def _adopt(self) -> None:
        for entry in self._spool.adopt(but=self._strangers):
            finished = entry.finished()
            if finished is None:
                self._leave_unless_old(entry, time.time() - entry.path.stat().st_mtime)
                continue
            try:
                self._delivery.renewal(finished.claim, self._worker_id, None)(None)
            except StaleFenceError:
                self._settle_stale(entry, finished)
                continue
            except DatabaseUnavailableError:
                entry.leave()
                raise
            _log.info("job %s: finished by a worker that died; handing it in", finished.claim.job_id)
            self.add(entry, finished)

    def _settle_stale(self, entry: Entry, finished: Finished) -> None:
        if self._delivery.knows(finished.claim):
            _log.info(
                "job %s: finished by a worker that died, and not needed any more", finished.claim.job_id
            )
            entry.remove()
        else:
            self._leave_unless_old(entry, time.time() - finished.at)

    def _leave_unless_old(self, entry: Entry, age_seconds: float) -> None:
        """Of another farm, or of a newer version: not ours to hand in or to throw away, yet."""
        if age_seconds > self._settings.spool_seconds:
            _log.warning("the spool's %s is too old and is removed", entry.path.name)
            entry.remove()
            return
        _log.warning("the spool's %s is not of this farm and stays", entry.path.name)
        self._strangers.add(entry.path.name)
        entry.leave()

    def _hand_in(self, each: _Waiting) -> None:
        if self._stopping.is_set():
            return
        job_id = each.finished.claim.job_id
        try:
            if each.heartbeat.verdict is Outcome.LOST:
                _log.warning("job %s: superseded, result discarded", job_id)
                each.entry.remove()
            elif each.heartbeat.verdict is Outcome.CANCELLED:
                self._delivery.cancel(each.entry, each.finished)
            else:
                self._delivery.hand_in(each.entry, each.finished)
        except DatabaseUnavailableError:
            raise
        except LATER as error:
            each.heartbeat.progress(Progress(stage=f"waiting to hand in the result ({error.code})"))
            if time.time() - each.finished.at < self._settings.spool_seconds:
                return
            self._give_up(each, ErrorView(code=error.code, message=error.message, hint=error.hint))
        except Exception as error:  # noqa: BLE001 - counted, so that one bad entry does not stay for ever
            _log.exception("job %s: its result could not be handed in", job_id)
            each.defects += 1
            if each.defects < _DEFECTS:
                return
            self._give_up(each, ErrorView(code="INTERNAL", message=f"The worker failed: {error!r}"))
        each.heartbeat.stop()
        with self._lock:
            self._waiting.remove(each)

    def _give_up(self, each: _Waiting, error: ErrorView) -> None:
        claim = each.finished.claim
        failure = AttemptFailure(outcome=Outcome.FAILED, error=error, retryable=True)
        try:
            self._delivery.commit(each.finished, lambda leases: leases.fail(claim, failure))
        except TrtFarmError as again:
            _log.warning(
                "job %s: its failure could not be told (%s); its lease will run out", claim.job_id, again
            )
        each.entry.remove()
