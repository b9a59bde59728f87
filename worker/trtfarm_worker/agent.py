"""The agent of a worker: claims jobs for its own queues and runs them, one a slot, until told to stop."""

from __future__ import annotations

import contextlib
import itertools
import logging
import platform
import shutil
import socket
import threading
import time
from collections.abc import Sequence
from random import randrange

from uuid_utils import uuid7

from trtfarm.contract.device import Device
from trtfarm.contract.leases import OLDEST_EVERY, Claim, WorkerInfo
from trtfarm.contract.target import DEFAULT_PLATFORM, RTX, queue_name
from trtfarm.contract.worker import Pause, WorkerCondition
from trtfarm.errors import ConfigurationError, DatabaseUnavailableError, GpuBusyError
from trtfarm.failpoints import reach
from trtfarm.private_folder import private_folder
from trtfarm.ring import Bell
from trtfarm.sandbox import Part
from trtfarm.store import ArtifactStore
from trtfarm_db.engine import Database
from trtfarm_db.repositories.jobs import JobRepository
from trtfarm_db.repositories.leases import LeaseRepository
from trtfarm_db.repositories.workers import WorkerRepository
from trtfarm_worker import nvml
from trtfarm_worker.attempt import Attempt
from trtfarm_worker.child.box import remove_litter
from trtfarm_worker.child.gpu_lock import choose, gpu_lock
from trtfarm_worker.child.orphans import end_orphans
from trtfarm_worker.child.process import GpuHold, TensorRTChild
from trtfarm_worker.delivery import Delivery
from trtfarm_worker.model_cache import ModelCache
from trtfarm_worker.outbox import Outbox
from trtfarm_worker.pauses import WHY, Bearing, Breaker, Room
from trtfarm_worker.probe import Probe
from trtfarm_worker.settings import WorkerSettings
from trtfarm_worker.spool import Spool
from trtfarm_worker.work import Workshop

_log = logging.getLogger(__name__)
_PRESENCE_SECONDS = 15.0
_OUTAGE_SECONDS = 1.0
_GRACE_POLL_SECONDS = 0.2
_PAUSE_LOOK_SECONDS = 1.0
_NEWS_SECONDS = 0.5
_SILENCE_SECONDS = 60.0


class Agent:
    """Owns the slots of one worker process. A ring only wakes it; the database says what to do."""

    def __init__(
        self, *, settings: WorkerSettings, database: Database, store: ArtifactStore, bell: Bell
    ) -> None:
        self.worker_id = str(uuid7())
        self._settings = settings
        self._database = database
        self._store = store
        self._bell = bell
        self._hold = contextlib.ExitStack()
        self._children: list[TensorRTChild] = []
        self._threads: list[threading.Thread] = []
        self._changed = threading.Condition()
        self._rings = 0
        # Not all begin with the oldest: of workers that live for a few jobs only, each tenth does.
        self._turns = itertools.count(randrange(OLDEST_EVERY))  # noqa: S311 - no secret
        self._busy = 0
        self._draining = False
        self._stopping = threading.Event()
        spool = Spool(settings.scratch / "spool")
        delivery = Delivery(store, database, settings)
        self._spool, self._delivery = spool, delivery
        self._outbox = Outbox(spool, delivery, settings, self.worker_id)
        self._paused: dict[int, Pause] = {}  # slots
        self._news = threading.Event()  # the worker's row should change
        self._looked_at = time.monotonic()
        self._sandbox: tuple[Part, ...] | None = None
        self.info: WorkerInfo | None = None

    @property
    def queues(self) -> Sequence[str]:
        """Empty before ``start``."""
        if self.info is None:
            return ()
        return [queue_name(self.info.runtime, gpu) for gpu in self.info.gpus]

    def start(self) -> WorkerInfo:
        """Loads TensorRT, registers the worker and starts its slots.

        Raises:
            ConfigurationError: TensorRT cannot be loaded or builds for nothing here, its GPU is taken, or the
                scratch folder cannot be written, or others may write into it.
            DatabaseUnavailableError: the farm's database does not answer.
        """
        private_folder(self._settings.scratch, "worker.scratch")
        end_orphans()
        remove_litter(self._settings.scratch / "boxes")
        device = self._take_gpu()
        ready = self._children[0].start()
        if device is not None and ready.multiprocessors:
            device = device.model_copy(update={"multiprocessors": ready.multiprocessors})
        workshop = self._open_workshop(device)
        gpus = ready.gpus or ((device.gpu,) if device else ())
        if not gpus:
            raise ConfigurationError(f"{ready.runtime} builds for no target on this machine.")
        self.info = WorkerInfo(
            worker_id=self.worker_id,
            hostname=socket.gethostname(),
            runtime=ready.runtime,
            platform=f"{platform.system()}-{platform.machine()}".lower() or DEFAULT_PLATFORM,
            gpus=gpus,
            slots=len(self._children),
            device=device,
        )
        self._sandbox = ready.sandbox
        self._tell_of_the_sandbox()
        with self._database.transaction() as connection:
            WorkerRepository(connection).register(self.info)
        try:
            self._outbox.start()
            self._probe().remove_litter()
        except OSError as error:
            scratch = self._settings.scratch
            raise ConfigurationError(f"The scratch folder {scratch} cannot be used: {error}") from error
        for number, child in enumerate(self._children):
            self._spawn(f"slot-{number}", self._slot, number, workshop, child)
        self._news.set()
        self._spawn("presence", self._presence)
        return self.info

    def _tell_of_the_sandbox(self) -> None:
        if not self._sandbox:
            _log.warning("worker.sandbox is off: a model can reach all that this worker can")
            return
        _log.info("sandbox: %s", ", ".join(self._sandbox))
        if lacking := [part for part in Part if part not in self._sandbox]:
            _log.warning("Linux %s has no sandbox for: %s", platform.release(), ", ".join(lacking))

    def _take_gpu(self) -> Device | None:
        """With TensorRT that builds on a GPU: locks it for this worker and its one child."""
        if self._settings.runtime == RTX:
            self._children = [TensorRTChild(self._settings) for _ in range(self._settings.slots)]
            return None
        device = choose(nvml.devices(), self._settings.gpu)
        lock = self._hold.enter_context(gpu_lock(device.uuid))
        self._children = [TensorRTChild(self._settings, gpu=GpuHold(device.uuid, lock))]
        others = nvml.compute_processes(device.uuid)
        if others:
            pids = ", ".join(str(each.pid) for each in others)
            _log.warning("%s is in use by process %s: timings will suffer", device.gpu, pids)
        return device

    def _open_workshop(self, device: Device | None) -> Workshop:
        scratch = self._settings.scratch
        return Workshop(
            worker_id=self.worker_id,
            spool=self._spool,
            delivery=self._delivery,
            outbox=self._outbox,
            settings=self._settings,
            database=self._database,
            store=self._store,
            models=ModelCache(scratch / "models", self._store, self._settings.model_cache_bytes),
            device=device,
            stopping=self._stopping.is_set,
        )

    @property
    def rings(self) -> int:
        """How many were heard."""
        return self._rings

    @property
    def idle(self) -> bool:
        """Whether no slot runs a job, and one at least would."""
        with self._changed:
            return not self._busy and len(self._paused) < len(self._children) and not self._draining

    def wake(self) -> None:
        """There may be work."""
        with self._changed:
            self._rings += 1
            self._changed.notify_all()

    def wait_until_free(self) -> None:
        """Blocks while every slot is busy, so that a full worker swallows no rings meant for another."""
        with self._changed:
            while self._busy + len(self._paused) >= len(self._children) and not self._draining:
                self._changed.wait()

    def condition(self) -> WorkerCondition:
        """What the fleet shows of this worker."""
        room = shutil.disk_usage(self._settings.scratch) if self._settings.scratch.exists() else None
        return WorkerCondition(
            paused=tuple(sorted(set(self._paused.values()))),
            paused_slots=len(self._paused),
            spool_entries=self._outbox.waiting,
            spool_bytes=self._outbox.waiting_bytes,
            scratch_free_bytes=room.free if room else None,
            sandbox=self._sandbox,
        )

    def _looks_for_work(self) -> bool:
        """False if a slot has nothing to do and yet has not asked the database for long: it hangs."""
        with self._changed:
            idle = self._busy + len(self._paused) < len(self._children) and not self._draining
        patience = max(_SILENCE_SECONDS, 4 * self._settings.idle_poll_seconds)
        patience += self._settings.child_start_seconds
        return not idle or time.monotonic() - self._looked_at < patience

    def drain(self) -> None:
        """Claims nothing more; what is running goes on."""
        with self._changed:
            self._draining = True
            self._changed.notify_all()

    def release(self) -> None:
        """Stops running builds now; their jobs go back to the queue. Safe in a signal handler."""
        self._stopping.set()

    def stop(self, grace_seconds: float = 0) -> None:
        """Drains, waits for running builds, and releases those that take longer than the grace."""
        self.drain()
        end = time.monotonic() + grace_seconds
        with self._changed:
            while (
                (self._busy or self._outbox.waiting)
                and not self._stopping.is_set()
                and time.monotonic() < end
            ):
                self._changed.wait(_GRACE_POLL_SECONDS)
        self._stopping.set()
        for thread in self._threads:
            thread.join()
        for child in self._children:
            child.kill()
        self._outbox.stop()
        self._hold.close()
        if self.info is not None:
            try:
                with self._database.transaction() as connection:
                    WorkerRepository(connection).stopped(self.worker_id)
            except DatabaseUnavailableError:
                _log.warning("the database does not answer; this worker's row will expire by itself")

    def _spawn(self, name: str, target: object, *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, name=name, daemon=True)  # type: ignore[arg-type]
        thread.start()
        self._threads.append(thread)

    def _slot(self, number: int, workshop: Workshop, child: TensorRTChild) -> None:
        # The child's parent-death signal follows this thread, so it lives as long as the slot does.
        breaker = Breaker(self._settings.breaker_crashes, self._settings.breaker_seconds)
        room = Room(self._settings, workshop.models, self._outbox)
        probe = self._probe()
        while True:
            seen = self._rings
            if self._draining:
                return
            if breaker.in_doubt and not breaker.is_open and not self._prove(number, breaker, probe, child):
                continue
            if self._must_pause(number, Pause.CRASHES if breaker.is_open else room.pause()):
                with self._changed:
                    self._changed.wait(_PAUSE_LOOK_SECONDS)
                continue
            claim = self._claim(workshop)
            if claim is None:
                if self._warm(child):
                    self._wait_for_ring(seen)
                else:
                    breaker.record("", Bearing.BROKEN)
                continue
            try:
                reach("worker.after_claim")
                breaker.record(claim.spec.build_key, Attempt(workshop, claim, child).run())
            except Exception:  # noqa: BLE001 - a slot outlives whatever an attempt does
                _log.exception("job %s: the attempt could not be ended; its lease will run out", claim.job_id)
            finally:
                with self._changed:
                    self._busy -= 1
                    self._changed.notify_all()

    def _probe(self) -> Probe:
        assert self.info is not None  # noqa: S101 - slots begin once the worker knows what it is
        return Probe(self.info, self._settings.scratch / "probes", self._stopping.is_set)

    def _prove(self, number: int, breaker: Breaker, probe: Probe, child: TensorRTChild) -> bool:
        """Tries a build of the worker's own; False if the worker stops meanwhile."""
        with self._changed:
            busy = number not in self._paused  # else it counts already as one that does nothing for others
            self._busy += busy
        _log.warning("slot %d: jobs brought its child down; it tries a build of its own", number)
        try:
            works = probe.passes(child)
        except Exception:  # noqa: BLE001 - a slot outlives whatever goes wrong
            _log.exception("slot %d: the worker's own build could not be tried", number)
            works = False
        finally:
            with self._changed:
                self._looked_at = time.monotonic()
                self._busy -= busy
                self._changed.notify_all()
        if works is not None:
            breaker.proved(works=works)
        return works is not None

    def _must_pause(self, number: int, reason: Pause | None) -> bool:
        with self._changed:
            before = self._paused.get(number)
            if reason is before:
                return reason is not None
            if reason is None:
                del self._paused[number]
                _log.info("slot %d goes on", number)
            else:
                self._paused[number] = reason
                _log.warning("slot %d claims nothing: %s", number, WHY[reason])
            self._changed.notify_all()
        self._news.set()
        return reason is not None

    def _claim(self, workshop: Workshop) -> Claim | None:
        with self._changed:
            self._busy += 1
        claim = None
        oldest = next(self._turns) % OLDEST_EVERY == 0
        try:
            with self._database.transaction() as connection:
                claim = LeaseRepository(
                    connection, lease_seconds=self._settings.lease_seconds, policy=self._settings.retry
                ).claim(self.queues, self.worker_id, workshop.gpu_uuid, oldest=oldest)
                more = claim is not None and JobRepository(connection).any_queued(claim.spec.target.queue)
                if claim is not None:
                    reach("worker.before_claim_commit")
            self._looked_at = time.monotonic()
            if claim is not None and more:
                # The ring that led here stood for all of them: pass it on.
                self._bell.ring(claim.spec.target.queue)
        except DatabaseUnavailableError:
            self._stopping.wait(_OUTAGE_SECONDS)
        except GpuBusyError:
            _log.warning("another worker's job still runs on this GPU")
            self._stopping.wait(_OUTAGE_SECONDS)
        except Exception:  # noqa: BLE001 - a slot that ends would leave a worker that looks alive
            _log.exception("nothing could be claimed")
            self._stopping.wait(_OUTAGE_SECONDS)
        finally:
            if claim is None:
                with self._changed:
                    self._busy -= 1
                    self._changed.notify_all()
        return claim

    @staticmethod
    def _warm(child: TensorRTChild) -> bool:
        try:
            child.warm()
        except (ConfigurationError, OSError) as error:
            _log.warning("a new TensorRT child does not start: %s", error)
            return False
        return True

    def _wait_for_ring(self, seen: int) -> None:
        with self._changed:
            if self._rings == seen and not self._draining:
                self._changed.wait(self._settings.idle_poll_seconds)

    def _tell(self) -> None:
        with self._database.transaction() as connection:
            workers = WorkerRepository(connection)
            known = workers.seen(self.worker_id, draining=self._draining, condition=self.condition())
            if not known and self.info is not None:
                workers.register(self.info)  # forgotten while this machine slept

    def _presence(self) -> None:
        told_at = time.monotonic()
        while not self._stopping.wait(_NEWS_SECONDS):
            due = time.monotonic() - told_at >= _PRESENCE_SECONDS
            if not (due or self._news.is_set()):
                continue
            self._news.clear()
            told_at = time.monotonic()
            if not self._looks_for_work():
                _log.error("no slot has asked the database for long: the farm takes this worker for silent")
                continue
            try:
                self._tell()
            except DatabaseUnavailableError:
                _log.warning("the database does not answer")
            except Exception:  # noqa: BLE001 - without it the farm would take this worker for dead
                _log.exception("the worker's row could not be updated")
