"""What Prometheus sees of the API and its queues."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from trtfarm.errors import UnavailableError
from trtfarm_db.engine import Database
from trtfarm_db.repositories.jobs import JobRepository
from trtfarm_db.repositories.workers import WorkerRepository


class Metrics:
    """One registry per application: two of them in a process do not mix."""

    def __init__(self, database: Database) -> None:
        self._registry = CollectorRegistry()
        self.submissions = Counter(
            "trtfarm_submissions", "Submissions by what they did.", ["disposition"], registry=self._registry
        )
        self.uploaded_bytes = Counter(
            "trtfarm_uploaded_bytes", "Bytes of models received.", registry=self._registry
        )
        self.reaped = Counter("trtfarm_leases_reaped", "Leases that ran out.", registry=self._registry)
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

    def describe(self) -> list[GaugeMetricFamily]:
        return []

    def collect(self) -> Iterator[GaugeMetricFamily]:
        jobs = GaugeMetricFamily("trtfarm_jobs", "Live jobs.", labels=["queue", "state"])
        workers = GaugeMetricFamily("trtfarm_workers_alive", "Workers that answer.", labels=["runtime"])
        up = GaugeMetricFamily("trtfarm_database_up", "1 if the database answers.")
        try:
            with self._database.transaction() as connection:
                for queue, state, count in JobRepository(connection).counts():
                    jobs.add_metric([queue, state.value], count)
                alive = [worker.runtime for worker in WorkerRepository(connection).views() if worker.alive]
            for runtime in sorted(set(alive)):
                workers.add_metric([runtime], alive.count(runtime))
            up.add_metric([], 1)
        except UnavailableError:
            up.add_metric([], 0)
        yield from (jobs, workers, up)
