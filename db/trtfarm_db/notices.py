"""PostgreSQL's NOTIFY: tells at once that something has happened to a job.

A doorbell like the ring: a notice may get lost, and says no more than "look".
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

from sqlalchemy import func, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from trtfarm_db.engine import Database
from trtfarm_db.models import JobEvent

CHANNEL = "trtfarm_jobs"
TELL = func.pg_notify(CHANNEL, JobEvent.job_id)
"""To be returned by the INSERT of an event; the notices leave when the transaction is committed."""

_WAIT_SECONDS = 0.25  # and so long ``stop`` may take
_RETRY_SECONDS = 1.0
_log = logging.getLogger(__name__)


class Listener:
    """Calls ``on_job`` with the id of every job that something happens to, from a thread of its own."""

    def __init__(self, database: Database, on_job: Callable[[str], object]) -> None:
        self._database = database
        self._on_job = on_job
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="notices", daemon=True)
        self.listening = False

    def start(self) -> None:
        """Does nothing on SQLite, which has no notices."""
        if self._database.engine.dialect.name == "postgresql":
            self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        errors = (DBAPIError, PoolTimeoutError, self._database.engine.dialect.loaded_dbapi.Error)
        while not self._stopped.is_set():
            try:
                with self._database.engine.connect() as connection:
                    connection.execution_options(isolation_level="AUTOCOMMIT")
                    driver = connection.connection.driver_connection
                    connection.detach()  # one that listens is not for the pool
                    connection.execute(text(f"LISTEN {CHANNEL}"))
                    self._listen(driver)
            except errors as error:
                _log.debug("no notices: %s", error)
                self._stopped.wait(_RETRY_SECONDS)
            finally:
                self.listening = False

    def _listen(self, driver: Any) -> None:
        self.listening = True
        while not self._stopped.is_set():
            for notice in driver.notifies(timeout=_WAIT_SECONDS):
                self._on_job(notice.payload)
