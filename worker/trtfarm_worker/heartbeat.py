"""Keeps the lease of one attempt alive, in a thread with its own database connection."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from trtfarm.contract.jobs import Outcome
from trtfarm.contract.leases import Renewal
from trtfarm.contract.v1 import Progress
from trtfarm.errors import DatabaseUnavailableError, GpuBusyError, StaleFenceError

_log = logging.getLogger(__name__)
_PROGRESS_SECONDS = 0.5
_GATHER_SECONDS = 0.05  # the first stages of an attempt come one upon another


class Heartbeat:
    """Renews at least every ``interval_seconds``, and sooner when there is progress to tell.

    A database that does not answer stops nothing: the attempt goes on and the lease resumes, unless
    another worker has claimed the job meanwhile.
    """

    def __init__(self, renew: Callable[[Progress | None], Renewal], interval_seconds: float) -> None:
        self._renew = renew
        self._interval = interval_seconds
        self._progress: Progress | None = None
        self._changed = threading.Event()
        self._stopped = threading.Event()
        self._verdict: Outcome | None = None
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Returns when nothing is renewed any more."""
        self._stopped.set()
        self._changed.set()
        self._thread.join()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def verdict(self) -> Outcome | None:
        """CANCELLED or LOST when the attempt must stop."""
        return self._verdict

    def progress(self, progress: Progress) -> None:
        self._progress = progress
        self._changed.set()

    def _run(self) -> None:
        while not self._stopped.is_set():
            if self._changed.wait(self._interval):
                self._stopped.wait(min(_GATHER_SECONDS, self._interval))
            self._changed.clear()
            if self._stopped.is_set():
                return
            try:
                if self._renew(self._progress).cancel_requested:
                    self._verdict = Outcome.CANCELLED
            except StaleFenceError:
                self._verdict = Outcome.LOST
                return
            except GpuBusyError:
                _log.warning("the lease had run out, and the GPU has another job since: giving way")
                self._verdict = Outcome.LOST
                return
            except DatabaseUnavailableError:
                _log.warning("the database does not answer; the build goes on")
            except Exception:  # noqa: BLE001 - a thread that dies would cost the lease
                _log.exception("the lease could not be renewed; the build goes on")
            self._stopped.wait(min(_PROGRESS_SECONDS, self._interval))


def deadline(seconds: float) -> Callable[[], bool]:
    """A function that tells whether ``seconds`` have passed since now."""
    end = time.monotonic() + seconds
    return lambda: time.monotonic() > end
