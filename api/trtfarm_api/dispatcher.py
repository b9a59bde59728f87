"""Reaps expired leases and rings for jobs that wait: what makes lost messages and lost workers harmless."""

from __future__ import annotations

import logging
import threading
import time

from trtfarm.errors import DatabaseUnavailableError
from trtfarm_api.farm import Farm
from trtfarm_db.repositories.jobs import JobRepository
from trtfarm_db.repositories.leases import LeaseRepository

_log = logging.getLogger(__name__)


class Dispatcher:
    """Every API process may run one: all it does is idempotent."""

    def __init__(self, farm: Farm) -> None:
        self._farm = farm
        self._stopped = threading.Event()
        self._hold_until = 0.0
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
                self._hold_until = time.monotonic() + self._farm.settings.lease_seconds
                _log.warning("the database does not answer")
            except Exception:  # noqa: BLE001 - without it no lease would ever be reaped
                _log.exception("the dispatcher failed; it goes on")

    def look(self) -> None:
        settings = self._farm.settings
        with self._farm.database.transaction() as connection:
            if time.monotonic() >= self._hold_until:
                leases = LeaseRepository(
                    connection, lease_seconds=settings.lease_seconds, policy=settings.retry
                )
                for job_id in leases.reap():
                    self._farm.metrics.reaped.inc()
                    _log.warning("job %s: its worker stopped answering", job_id)
            queues = JobRepository(connection).queues_with_work()
        for queue in queues:
            self._farm.bell.ring(queue)
