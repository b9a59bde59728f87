"""Those who use a farm while its fleet works, and how it feels to them."""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import psycopg

from bench import load
from bench.farm import Farm
from bench.figures import BenchError
from bench.submissions import submission
from trtfarm.contract.digest import Digest
from trtfarm_db.repositories.jobs import JobRepository

_PAUSE_SECONDS = 0.5
_WORKSPACE, _PAGE = 1 << 20, 4096


@dataclass
class People:
    """``seconds``: by what was asked. ``running_of_quota``: of the key with one, every second."""

    seconds: dict[str, list[float]] = field(default_factory=dict)
    rss_bytes: list[int] = field(default_factory=list)
    running_of_quota: list[int] = field(default_factory=list)

    def time(self, name: str, call: Callable[[], object]) -> None:
        began = time.monotonic()
        call()
        self.seconds.setdefault(name, []).append(time.monotonic() - began)


def use(running: Farm, model: Digest, key: str, followers: int, *, until: float) -> People:
    """Somebody submits and looks, somebody watches, others follow. Raises BenchError: one got an error."""
    people = People()
    with _following(running, followers), ThreadPoolExecutor(2) as pool:
        tasks = [
            pool.submit(_submit_and_look, running, model, people, until),
            pool.submit(_watch, running, key, people, until),
        ]
        for task in tasks:
            task.result()
    return people


def _submit_and_look(running: Farm, model: Digest, people: People, until: float) -> None:
    """Twice a second, a job; now and then all the rest."""
    number = 0
    with load.Connection(running.port) as connection:

        def ask(name: str, request: bytes) -> bytes:
            said: list[tuple[int, bytes]] = []
            people.time(name, lambda: said.append(connection.exchange(request)))
            status, body = said[0]
            if status >= 300:
                raise BenchError(f"{name}: {status} {body[:300]!r}")
            return body

        while time.monotonic() < until:
            number += 1
            said = json.loads(
                ask("POST /v1/jobs", submission(model, _WORKSPACE + _PAGE * number, running.key))
            )
            ask("GET /v1/jobs/{id}", load.get(f"/v1/jobs/{said['job']['job_id']}", running.key))
            if number % 4 == 0:
                ask("GET /v1/jobs", load.get("/v1/jobs?state=queued&limit=50", running.key))
            if number % 10 == 0:
                ask("GET /v1/fleet", load.get("/v1/fleet", running.key))
                ask("GET /metrics", load.get("/metrics", running.key))
            time.sleep(_PAUSE_SECONDS)


def _watch(running: Farm, key: str, people: People, until: float) -> None:
    def look() -> None:
        with running.database.transaction() as connection:
            JobRepository(connection).queues_with_work()

    with connected(running) as plain:
        plain.autocommit = True
        while time.monotonic() < until:
            people.rss_bytes.append(_rss_bytes(running.pids[0]))
            people.time("dispatcher: which queues have work", look)
            row = plain.execute(
                "SELECT count(*) FROM jobs WHERE state = 'running' AND quota = %s", (key,)
            ).fetchone()
            people.running_of_quota.append(row[0] if row else 0)
            time.sleep(1)


@contextlib.contextmanager
def _following(running: Farm, count: int) -> Iterator[None]:
    """Some follow the last jobs in line, until the block ends."""
    with connected(running) as plain:
        rows = plain.execute(
            "SELECT id FROM jobs WHERE state = 'queued' ORDER BY id DESC LIMIT %s", (count,)
        ).fetchall()
    with contextlib.ExitStack() as stack:
        for (job_id,) in rows:
            following = stack.enter_context(load.Connection(running.port))
            following.send(load.get(f"/v1/jobs/{job_id}/events", running.key))
            threading.Thread(target=following.drain, daemon=True).start()
        yield


def connected(running: Farm) -> psycopg.Connection:
    return psycopg.connect(running.database_url.replace("+psycopg", ""))


def _rss_bytes(pid: int) -> int:
    pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
