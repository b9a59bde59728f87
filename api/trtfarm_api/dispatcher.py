"""Reaps expired leases and rings for jobs that wait: what makes lost messages and lost workers harmless."""

from __future__ import annotations

import logging
import threading
import time

from trtfarm.errors import DatabaseUnavailableError
from trtfarm.failpoints import reach
from trtfarm_api.farm import Farm
from trtfarm_db.repositories.jobs import JobRepository
from trtfarm_db.repositories.leases import LeaseRepository

_log = logging.getLogger(__name__)


class Dispatcher:
    """Every API process may run one: all it does is idempotent."""

    def __init__(self, farm: Farm) -> None:
        self._farm = farm
        self._stopped = threading.Event()
        # Why this process has just started is unknown: after an outage, workers need time to renew. An
        # embedded farm's workers are in this process, and those of an earlier one are dead.
        self._hold_until = self._held() if farm.database.shared else 0.0
        self._thread = threading.Thread(target=self._run, name="dispatcher", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopped.wait(self._farm.settings.dispatch_seconds):
            try:
                self.look()
            except DatabaseUnavailableError:
                # Workers could not renew their leases either: give them the time to do so.
                self._hold_until = self._held()
                _log.warning("the database does not answer")
            except Exception:  # noqa: BLE001 - without it no lease would ever be reaped
                _log.exception("the dispatcher failed; it goes on")

    def _held(self) -> float:
        return time.monotonic() + self._farm.settings.lease_seconds

    def look(self) -> None:
        settings, reaped = self._farm.settings, list[str]()
        with self._farm.database.transaction() as connection:
            if time.monotonic() >= self._hold_until:
                leases = LeaseRepository(
                    connection, lease_seconds=settings.lease_seconds, policy=settings.retry
                )
                reaped = leases.reap()
                for job_id in reaped:
                    self._farm.metrics.reaped.inc()
                    _log.warning("job %s: its worker stopped answering", job_id)
                    reach("reaper.before_commit")
            queues = JobRepository(connection).queues_with_work()
        if reaped:
            reach("reaper.after_commit")
        for queue in queues:
            reach("dispatcher.before_ring")
            self._farm.bell.ring(queue)
            reach("dispatcher.after_ring")
