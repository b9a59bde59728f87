"""A fleet of simulated workers: the real claims, renewals and results, and a pause for the build.

One process has many workers and few threads: whatever is due next is done by a thread that is free. (With
one thread a process, no claim waits for another's Python, as it does not on a worker's own machine.)
``late`` tells how far the threads are behind: while that is next to nothing, the fleet is as fast as it
pretends to be.
"""

from __future__ import annotations

import heapq
import random
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Literal, NamedTuple

from bench.farm import open_database
from trtfarm.contract.digest import Digest
from trtfarm.contract.leases import OLDEST_EVERY, BuildResult, Claim, PublishedBlob, RetryPolicy
from trtfarm_db.engine import Database
from trtfarm_db.repositories.leases import LeaseRepository
from trtfarm_db.repositories.workers import WorkerRepository

LEASE_SECONDS, RENEW_SECONDS, SEEN_SECONDS, IDLE_SECONDS = 60.0, 5.0, 15.0, 15.0  # as real workers have them
Kind = Literal["claim", "renew", "finish", "seen"]


@dataclass(frozen=True)
class Fleet:
    """``workers``: (id, queues) of each. ``build_seconds``: mean of the pause that stands for a build."""

    database_url: str
    workers: Sequence[tuple[str, Sequence[str]]]
    threads: int
    build_seconds: float
    seconds: float
    seed: int


@dataclass
class Record:
    """What a fleet has seen. Seconds; ``claims`` with the claim's time since the start."""

    claims: list[tuple[float, float]] = field(default_factory=list)
    claimed: list[tuple[float, str]] = field(default_factory=list)
    seconds: dict[str, list[float]] = field(default_factory=lambda: {"renew": [], "finish": [], "seen": []})
    late: list[float] = field(default_factory=list)
    idle: int = 0
    errors: list[str] = field(default_factory=list)


class _Due(NamedTuple):
    at: float
    number: int  # so that nothing below is compared
    kind: Kind
    worker: int
    claim: Claim | None
    until: float


class _Run:
    def __init__(self, fleet: Fleet, started: float) -> None:
        self._fleet = fleet
        self._started = started
        self._random = random.Random(fleet.seed)
        self._turns = [self._random.randrange(OLDEST_EVERY) for _ in fleet.workers]
        self._due: list[_Due] = []
        self._number = 0
        self._changed = threading.Condition()
        self.record = Record()
        for worker in range(len(fleet.workers)):
            self._later("claim", worker, self._random.uniform(0, fleet.build_seconds))
            self._later("seen", worker, self._random.uniform(0, SEEN_SECONDS))

    def _later(
        self, kind: Kind, worker: int, seconds: float, claim: Claim | None = None, until: float = 0
    ) -> None:
        with self._changed:
            self._number += 1
            at = max(time.monotonic(), self._started) + seconds
            heapq.heappush(self._due, _Due(at, self._number, kind, worker, claim, until))
            self._changed.notify()

    def _next(self) -> _Due | None:
        end = self._started + self._fleet.seconds
        with self._changed:
            while (now := time.monotonic()) < end:
                if self._due and self._due[0].at <= now:
                    return heapq.heappop(self._due)
                self._changed.wait(min(self._due[0].at if self._due else end, end) - now)
        return None

    def work(self, database: Database) -> None:
        while (due := self._next()) is not None:
            began = time.monotonic()
            self.record.late.append(began - due.at)
            try:
                self._do(database, due)
            except Exception as error:  # told in the report
                self.record.errors.append(f"{due.kind}: {type(error).__name__}: {error}"[:300])
                return
            took = time.monotonic() - began
            if due.kind == "claim":
                self.record.claims.append((began - self._started, took))
            else:
                self.record.seconds[due.kind].append(took)

    def _do(self, database: Database, due: _Due) -> None:
        worker_id, queues = self._fleet.workers[due.worker]
        claim = due.claim
        with database.transaction() as connection:
            leases = LeaseRepository(connection, lease_seconds=LEASE_SECONDS, policy=RetryPolicy())
            if due.kind == "seen":
                WorkerRepository(connection).seen(worker_id)
            elif due.kind == "claim":
                self._turns[due.worker] += 1
                oldest = self._turns[due.worker] % OLDEST_EVERY == 0
                claim = leases.claim(queues, worker_id, oldest=oldest)
            elif due.kind == "renew" and claim is not None:
                leases.renew(claim, worker_id, None)
            elif claim is not None:
                leases.finish(claim, _result(claim, self._fleet.build_seconds))
        if due.kind == "seen":
            self._later("seen", due.worker, SEEN_SECONDS)
        elif due.kind == "finish":
            self._later("claim", due.worker, 0)
        elif claim is None:
            self.record.idle += 1
            self._later("claim", due.worker, IDLE_SECONDS)
        else:
            until = due.until
            if due.kind == "claim":
                self.record.claimed.append((time.monotonic() - self._started, claim.job_id))
                until = time.monotonic() + self._random.uniform(0.5, 1.5) * self._fleet.build_seconds
            self._go_on(due.worker, claim, until)

    def _go_on(self, worker: int, claim: Claim, until: float) -> None:
        left = until - time.monotonic()
        if left > RENEW_SECONDS:
            self._later("renew", worker, RENEW_SECONDS, claim, until)
        else:
            self._later("finish", worker, max(0.0, left), claim, until)


def _result(claim: Claim, seconds: float) -> BuildResult:
    """Of bytes that nobody has: what is measured is the database's part."""

    def blob(kind: str) -> PublishedBlob:
        return PublishedBlob(
            digest=Digest.of_bytes(f"{kind} of {claim.job_id}".encode()), size_bytes=1, etag="simulated"
        )

    return BuildResult(plan=blob("plan"), io=blob("io"), log=blob("log"), build_seconds=seconds)


def _warm(database: Database, worker_id: str, queues: Sequence[str]) -> None:
    """All statements once, undone: else SQLAlchemy works them out in all processes at the start."""
    with database.engine.connect() as connection:
        leases = LeaseRepository(connection, lease_seconds=LEASE_SECONDS, policy=RetryPolicy())
        for oldest in (False, True):
            claim = leases.claim(queues, worker_id, oldest=oldest)
            if claim is not None:
                leases.renew(claim, worker_id, None)
                leases.finish(claim, _result(claim, 0.0))
        WorkerRepository(connection).seen(worker_id)
        connection.rollback()


def run(fleet: Fleet, pipe: Connection) -> None:
    """In a process of its own: says that it is ready, waits for the start, sends its record."""
    database = open_database(fleet.database_url)
    _warm(database, *fleet.workers[0])
    pipe.send("ready")
    started: float = pipe.recv()
    task = _Run(fleet, started)
    threads = [threading.Thread(target=task.work, args=(database,)) for _ in range(fleet.threads)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    database.close()
    pipe.send(task.record)
