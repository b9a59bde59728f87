"""When a slot had better claim nothing: its child, or the disk, would only waste the jobs."""

from __future__ import annotations

import shutil
import time

from trtfarm.contract.worker import Pause
from trtfarm_worker.model_cache import ModelCache
from trtfarm_worker.outbox import Outbox
from trtfarm_worker.settings import WorkerSettings

_LONGEST_SECONDS = 1800.0


class Breaker:
    """Opens when ``crashes`` different jobs in a row brought the child down: then it is hardly the jobs.

    It stays open for ``seconds``, then lets one job through; each further crash doubles the time.
    """

    def __init__(self, crashes: int, seconds: float) -> None:
        self._crashes = crashes
        self._seconds = seconds
        self._jobs: set[str] = set()
        self._opened = 0
        self._until = 0.0

    def record(self, job_id: str, sound: bool | None) -> None:
        """``sound``: whether the child did its work, if only to refuse; None if the attempt does not tell."""
        if sound is None:
            return
        if sound:
            self._jobs.clear()
            self._opened = 0
            return
        self._jobs.add(job_id)
        if len(self._jobs) >= self._crashes:
            pause = min(self._seconds * 2**self._opened, _LONGEST_SECONDS)
            self._opened += 1
            self._until = time.monotonic() + pause

    @property
    def is_open(self) -> bool:
        return time.monotonic() < self._until


class Room:
    """Of a worker's scratch folder."""

    def __init__(self, settings: WorkerSettings, models: ModelCache, outbox: Outbox) -> None:
        self._settings = settings
        self._models = models
        self._outbox = outbox

    def pause(self) -> Pause | None:
        """DISK below the reserve, though unused models have gone; SPOOL above its limit."""
        if self._outbox.usage.size_bytes > self._settings.spool_bytes:
            return Pause.SPOOL
        missing = self._missing_bytes()
        if missing > 0:
            self._models.make_room(missing)
            missing = self._missing_bytes()
        return Pause.DISK if missing > 0 else None

    def _missing_bytes(self) -> int:
        try:
            free = shutil.disk_usage(self._settings.scratch).free
        except FileNotFoundError:  # it is made again for the next job
            return 0
        return self._settings.scratch_reserve_bytes - free
