"""When a slot had better claim nothing: its child, or the disk, would only waste the jobs."""

from __future__ import annotations

import shutil
import time
from enum import Enum

from trtfarm.contract.worker import Pause
from trtfarm_worker.model_cache import ModelCache
from trtfarm_worker.outbox import Outbox
from trtfarm_worker.settings import WorkerSettings

_LONGEST_SECONDS = 1800.0
WHY = {
    Pause.CRASHES: "jobs brought its child down, and so did a build of the worker's own",
    Pause.DISK: "its scratch folder has less than worker.scratch_reserve_bytes left",
    Pause.SPOOL: "more than worker.spool_bytes of finished work wait to be handed in",
}


class Bearing(Enum):
    """What an attempt tells of the child that ran it."""

    SOUND = "sound"  # it did its work, if only to refuse the job
    CRASHED = "crashed"  # it died or stood still: of this job, or of something here
    BROKEN = "broken"  # it does not start, or says that its GPU does not work


class Breaker:
    """Doubts a slot when ``crashes`` different builds in a row brought its child down, or one says it is
    broken.

    Whose fault that is, no count of jobs or submitters tells: one submitter's models may all crash TensorRT,
    and on a broken GPU all models of a farm's only submitter fail. So a slot in doubt claims nothing until a
    build of the worker's own was tried (``probe``). If that succeeds, the jobs are at fault, and the slot
    goes on. If it fails, the breaker is open for ``seconds``, and then it is tried again; each failure
    doubles the time.
    """

    def __init__(self, crashes: int, seconds: float) -> None:
        self._crashes = crashes
        self._seconds = seconds
        self._builds: set[str] = set()
        self._failures = 0
        self._until = 0.0
        self.in_doubt = False

    def record(self, build_key: str, bearing: Bearing | None) -> None:
        """``bearing``: None if the attempt does not tell."""
        if bearing is None:
            return
        if bearing is Bearing.SOUND:
            self._builds.clear()
            return
        self._builds.add(build_key)
        if bearing is Bearing.BROKEN or len(self._builds) >= self._crashes:
            self.in_doubt = True

    def proved(self, *, works: bool) -> None:
        """What the worker's own build showed."""
        if works:
            self._builds.clear()
            self._failures = 0
            self.in_doubt = False
            return
        pause = min(self._seconds * 2**self._failures, _LONGEST_SECONDS)
        self._failures += 1
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
