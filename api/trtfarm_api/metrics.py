"""What Prometheus sees of the API and its queues."""

from __future__ import annotations

import threading
from collections import Counter as Counts
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from anyio import CapacityLimiter
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from trtfarm.contract.jobs import JobState
from trtfarm.contract.v1 import WorkerView
from trtfarm.errors import UnavailableError
from trtfarm_api.worker_metrics import conditions
from trtfarm_db.engine import Database
from trtfarm_db.repositories.jobs import JobRepository
from trtfarm_db.repositories.workers import WorkerRepository

_SCRAPES = 2  # at a time
_SILENCE_SECONDS = 4.0  # shorter than Prometheus' own patience
_Look = tuple[list[tuple[str, JobState, int]], list[WorkerView]]


class MaintenanceMetrics:
    def __init__(self, registry: CollectorRegistry) -> None:
        self.leader = Gauge(
            "trtfarm_maintenance_leader", "1 in the process that does the maintenance.", registry=registry
        )
        self.done_at = Gauge(
            "trtfarm_maintenance_done_timestamp_seconds",
            "When this process last ended a round of maintenance.",
            registry=registry,
        )
        self.collected = Counter(
            "trtfarm_artifacts_collected", "Artifacts removed: nothing needed them.", registry=registry
        )
        self.freed_bytes = Counter(
            "trtfarm_freed_bytes", "Of the store and of staging, by maintenance.", registry=registry
        )
        self.expired = Counter("trtfarm_uploads_expired", "Uploads that went stale.", registry=registry)
        self.scrubbed_bytes = Counter("trtfarm_scrubbed_bytes", "Read and hashed again.", registry=registry)


class Metrics:
    """One registry per application: two of them in a process do not mix."""

    def __init__(self, database: Database) -> None:
        self.limiter = CapacityLimiter(_SCRAPES)
        self._registry = CollectorRegistry()
        self.submissions = Counter(
            "trtfarm_submissions", "Submissions by what they did.", ["disposition"], registry=self._registry
        )
        self.uploaded_bytes = Counter(
            "trtfarm_uploaded_bytes", "Bytes of models received.", registry=self._registry
        )
        self.reaped = Counter("trtfarm_leases_reaped", "Leases that ran out.", registry=self._registry)
        self.lost = Counter(
            "trtfarm_artifacts_lost",
            "Artifacts found missing or corrupt.",
            ["reason"],
            registry=self._registry,
        )
        self.disk_free_bytes = Gauge(
            "trtfarm_disk_free_bytes", "Of the disk that it is on.", ["place"], registry=self._registry
        )
        self.maintenance = MaintenanceMetrics(self._registry)
        self.request_seconds = Histogram(
            "trtfarm_request_seconds",
            "Time to the start of the answer.",
            ["method", "route", "status"],
            registry=self._registry,
        )
        self._registry.register(_FarmCollector(database))

    def exposition(self) -> bytes:
        return generate_latest(self._registry)


class _FarmCollector(Collector):
    """Read from the database when scraped, so that every API process says the same."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lock = threading.Lock()
        self._looks = ThreadPoolExecutor(1, "metrics")
        self._look: Future[_Look] | None = None

    def describe(self) -> list[GaugeMetricFamily]:
        return []

    def collect(self) -> Iterator[GaugeMetricFamily]:
        jobs = GaugeMetricFamily("trtfarm_jobs", "Live jobs.", labels=["queue", "state"])
        workers = GaugeMetricFamily("trtfarm_workers_alive", "Workers that answer.", labels=["runtime"])
        up = GaugeMetricFamily("trtfarm_database_up", "1 if the database answers.")
        try:
            counts, alive = self._looked()
        except (UnavailableError, TimeoutError):
            up.add_metric([], 0)
        else:
            for queue, state, count in counts:
                jobs.add_metric([queue, state.value], count)
            runtimes = Counts(worker.runtime for worker in alive)
            for runtime, number in sorted(runtimes.items()):
                workers.add_metric([runtime], number)
            yield from conditions(alive)
            up.add_metric([], 1)
        yield from (jobs, workers, up)

    def _looked(self) -> _Look:
        """Raises UnavailableError; TimeoutError for a database that is silent. One look waits at a time."""
        with self._lock:
            if self._look is None or self._look.done():
                self._look = self._looks.submit(self._read)
            look = self._look
        return look.result(_SILENCE_SECONDS)

    def _read(self) -> _Look:
        with self._database.transaction() as connection:
            alive = [worker for worker in WorkerRepository(connection).views() if worker.alive]
            return JobRepository(connection).counts(), alive
