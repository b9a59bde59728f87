"""Rounds of maintenance, in a thread of the API."""

from __future__ import annotations

import logging
import threading
import time

from trtfarm.errors import TrtFarmError
from trtfarm_api.farm import Farm
from trtfarm_api.maintenance.garbage import GarbageCollector
from trtfarm_api.maintenance.scrub import Scrubber
from trtfarm_api.maintenance.uploads import UploadSweeper
from trtfarm_db.leadership import Leadership
from trtfarm_db.repositories.workers import WorkerRepository

_log = logging.getLogger(__name__)
_FIRST = 1 / 60  # of a period: a farm that is used for minutes at a time is kept tidy, too


class Keeper:
    """Every API process has one. All sweep their staging folder; the leader forgets workers that are gone,
    collects garbage and scrubs.

    All that it does is harmless when two do it at once.
    """

    def __init__(self, farm: Farm) -> None:
        self._farm = farm
        self._metrics = farm.metrics.maintenance
        self._leadership = Leadership(farm.database)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="maintenance", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        period = self._farm.maintenance.period_seconds
        wait_seconds = period * _FIRST
        while not self._stopped.wait(wait_seconds):
            began_at = time.monotonic()
            try:
                self.round(until=began_at + period)
            except TrtFarmError as error:
                _log.warning("maintenance goes on later: %s", error)
            except Exception:  # noqa: BLE001 - without it nothing would ever be tidied again
                _log.exception("maintenance failed; it goes on later")
            wait_seconds = max(period * _FIRST, period - (time.monotonic() - began_at))
        self._leadership.give_up()

    def round(self, until: float) -> None:
        """Raises UnavailableError, ConfigurationError."""
        farm, settings = self._farm, self._farm.maintenance
        swept = UploadSweeper(farm.database, farm.settings.staging, settings).run()
        self._metrics.expired.inc(swept.uploads)
        self._metrics.freed_bytes.inc(swept.size_bytes)
        leads = self._leadership.held()
        self._metrics.leader.set(leads)
        if leads:
            with farm.database.transaction() as connection:
                WorkerRepository(connection).forget(settings.worker_seconds)
            garbage = GarbageCollector(farm.database, farm.store, settings).run()
            self._metrics.collected.inc(garbage.artifacts)
            self._metrics.freed_bytes.inc(garbage.size_bytes + garbage.temporary_bytes)
            scrubber = Scrubber(farm.database, farm.store, farm.blobs, farm.metrics, settings)
            scrubber.run(settings.scrub_seconds, self._stopped, until - time.monotonic())
        self._metrics.done_at.set_to_current_time()
