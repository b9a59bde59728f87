"""A database that is silent, gone, or breaks off in a COMMIT: never a 500, nothing done twice."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import event, func, select, text

from tests.integration.api.world import World, client, open_farm, problem, serving
from tests.integration.relay import Relay, relay
from trtfarm.contract.jobs import Scope
from trtfarm.errors import DatabaseUnavailableError
from trtfarm.inspection.pool import InspectionPool
from trtfarm_api.dispatcher import Dispatcher
from trtfarm_api.farm import Farm
from trtfarm_db.engine import Database
from trtfarm_db.models import Job, Submission
from trtfarm_db.repositories.keys import KeyRepository
from trtfarm_db.settings import DatabaseSettings

LIMIT_SECONDS = 1.0
BOUND_SECONDS = LIMIT_SECONDS + 2 + 20  # the connection's own bound, and a slow machine


@pytest.fixture(scope="module")
def wired(
    farm_url: str, tmp_path_factory: pytest.TempPathFactory, inspection: InspectionPool
) -> Iterator[tuple[World, Relay]]:
    """A farm with keys behind the wire."""
    with relay(farm_url) as (url, wire):
        folder = tmp_path_factory.mktemp("wired")
        settings = {"url": url, "statement_timeout_seconds": LIMIT_SECONDS, "connect_timeout_seconds": 1}
        database = Database.open(DatabaseSettings.model_validate(settings), "trtfarm-test")
        farm = replace(
            open_farm(url, folder, inspection, require_keys=True, lease_seconds=3600), database=database
        )
        with database.transaction() as connection:
            _, key = KeyRepository(connection).create("admin", Scope.ADMIN)
        with serving(farm) as address, client(address, key) as http:
            world = World(farm, address, http)
            world.register_workers()
            yield world, wire
            wire.speak()
        database.close()


def up(world: World) -> float:
    """After the key has been seen, /metrics answers whatever the database does."""
    answer = world.http.get("/metrics")
    assert answer.status_code == 200, answer.text
    (value,) = [
        line.split()[1] for line in answer.text.splitlines() if line.startswith("trtfarm_database_up ")
    ]
    return float(value)


def test_a_silent_database(wired: tuple[World, Relay]) -> None:
    """Every request comes to an end with 503, all at once, and the farm goes on when it speaks again."""
    world, wire = wired
    request = world.request()
    assert up(world) == 1
    wire.hush()
    try:
        time.sleep(5.1)  # until the key is looked for again
        started = time.monotonic()
        with ThreadPoolExecutor(12) as pool:
            answers = [
                pool.submit(call)
                for call in (
                    *[lambda: world.http.get("/v1/jobs")] * 8,
                    lambda: world.post_job(request, uuid4().hex),
                    lambda: world.announce(uuid4().bytes),
                    lambda: world.http.get("/readyz"),
                )
            ]
            assert world.http.get("/healthz").status_code == 200
            assert up(world) == 0
            assert time.monotonic() - started < 15  # with the database away, a scrape still has its answer
            *keyed, ready = answers
            for answer in keyed:
                problem(answer.result(), 503, "DB_UNAVAILABLE")
                assert int(answer.result().headers["Retry-After"]) > 0
            problem(ready.result(), 503, "UNAVAILABLE")  # strangers hear no more
        assert time.monotonic() - started < BOUND_SECONDS
    finally:
        wire.speak()
    assert world.post_job(request).status_code == 201
    assert up(world) == 1


def test_a_database_that_is_gone(wired: tuple[World, Relay]) -> None:
    world, wire = wired
    assert up(world) == 1
    wire.down = True
    try:
        time.sleep(1.1)  # connections used so lately are not asked, and fail when they are used
        for _ in range(2):
            problem(world.http.get("/v1/jobs"), 503, "DB_UNAVAILABLE")
        assert up(world) == 0
    finally:
        wire.down = False
    assert world.http.get("/v1/jobs").status_code == 200
    assert up(world) == 1


def rows(farm: Farm, key: str) -> tuple[int, int]:
    """(submissions under this Idempotency-Key, jobs of them)."""
    with farm.database.transaction() as connection:
        found = connection.execute(
            select(func.count(), func.count(func.distinct(Submission.job_id))).where(
                Submission.idempotency_key == key
            )
        ).one()
    return found[0], found[1]


def test_a_commit_whose_answer_is_lost(wired: tuple[World, Relay]) -> None:
    """With a key the farm looks what has become of it: the caller learns of the job at once."""
    world, wire = wired
    request, key = world.request(), uuid4().hex
    cuts = wire.cuts
    wire.cut_commit_of = b"INSERT INTO jobs"
    answer = world.post_job(request, key)
    assert wire.cuts == cuts + 1
    assert (answer.status_code, answer.json()["disposition"]) == (201, "created")
    again = world.post_job(request, key)
    assert again.json()["job"]["job_id"] == answer.json()["job"]["job_id"]
    assert rows(world.farm, key) == (1, 1)


def test_a_commit_whose_answer_is_lost_without_a_key(wired: tuple[World, Relay]) -> None:
    """The caller hears 503 and asks again: it joins the job that there is after all."""
    world, wire = wired
    request = world.request()
    wire.cut_commit_of = b"INSERT INTO jobs"
    problem(world.post_job(request), 503, "DB_UNAVAILABLE")
    again = world.post_job(request)
    assert (again.status_code, again.json()["disposition"]) == (200, "joined")
    with world.farm.database.transaction() as connection:
        same = select(func.count()).select_from(Job).where(Job.model_digest == request["model"])
        assert connection.execute(same).scalar_one() == 1


def test_connections_that_break_as_soon_as_they_are_made(farm_url: str) -> None:
    """As of a server that starts and is stopped again."""
    settings = DatabaseSettings.model_validate({"url": farm_url})
    database, other = (Database.open(settings, "trtfarm-test") for _ in range(2))
    with database.transaction() as connection:
        pid = connection.execute(text("SELECT pg_backend_pid()")).scalar_one()
    with other.transaction() as connection:
        connection.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": pid})
    other.close()
    time.sleep(1.1)  # idle for so long, a connection is asked before it is used

    @event.listens_for(database.engine, "connect")
    def stopped_again(made: Any, record: Any) -> None:
        made.close()

    for _ in range(3):
        with pytest.raises(DatabaseUnavailableError), database.transaction() as connection:
            connection.execute(text("SELECT 1"))
    event.remove(database.engine, "connect", stopped_again)
    with database.transaction() as connection:
        assert connection.execute(text("SELECT 1")).scalar_one() == 1
    database.close()


def test_nothing_is_reaped_just_after_the_start(world: World, tmp_path: Path) -> None:
    """Database and API come back together: workers that could not renew have a lease's time to do so."""
    job = world.job()
    claim = world.claim(job["job_id"])
    with world.farm.database.transaction() as connection:
        from sqlalchemy import update

        from trtfarm_db.base import db_now

        connection.execute(update(Job).where(Job.id == claim.job_id).values(lease_expires_at=db_now(-5)))
    patient = replace(world.farm, settings=world.farm.settings.model_copy(update={"lease_seconds": 3600.0}))
    Dispatcher(patient).look()
    assert world.get(f"/v1/jobs/{claim.job_id}")["state"] == "running"
    hasty = replace(world.farm, settings=world.farm.settings.model_copy(update={"lease_seconds": 0.001}))
    dispatcher = Dispatcher(hasty)
    time.sleep(0.01)
    dispatcher.look()
    assert world.get(f"/v1/jobs/{claim.job_id}")["state"] == "queued"
