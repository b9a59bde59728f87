"""The checker finds what it is there to find: a check that cannot fail proves nothing."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete, insert, update

from tests.chaos.behaviour import Behaviour
from tests.chaos.checker import check
from tests.chaos.client import History
from tests.chaos.farm import ChaosFarm
from tests.integration.conftest import opened
from tests.integration.farm import Farm
from trtfarm.contract.jobs import Disposition
from trtfarm.contract.leases import BuildResult, PublishedBlob
from trtfarm_db.base import db_now
from trtfarm_db.models import Attempt, Job, JobEvent, Plan, Submission, TimingCache
from trtfarm_db.repositories.jobs import Caller
from trtfarm_db.schema import upgrade


class World:
    """A farm at rest, with one job that succeeded."""

    def __init__(self, folder: Path) -> None:
        url = f"sqlite:///{folder / 'home' / 'farm.sqlite'}"
        self.chaos = ChaosFarm(folder, url, None, url)
        self.chaos.home.mkdir()
        self.database = opened(url)
        upgrade(self.database)
        self.store = self.chaos.store()
        self.history = History()
        farm = Farm(self.database)
        farm.add_model()
        self.job_id = farm.submit()
        with farm.jobs() as jobs:
            jobs.add_submission(Caller("anybody", "key", "hash"), self.job_id, Disposition.CREATED)
        claim = farm.claimed()
        plan = self.put(json.dumps({"job": self.job_id, "fence": claim.fence}))
        farm.finish(claim, BuildResult(plan=plan, io=self.put("io"), log=self.put("log"), build_seconds=1))
        self.history.accepted["key"].append(self.job_id)
        self.history.behaviours["key"] = Behaviour.QUICK

    def put(self, text: str) -> PublishedBlob:
        digest, blob = self.store.put_bytes(text.encode())
        return PublishedBlob(digest=digest, size_bytes=blob.size_bytes, etag=blob.etag)

    def run(self, *statements: Any) -> None:
        with self.database.transaction() as connection:
            connection.exec_driver_sql("PRAGMA defer_foreign_keys=ON")
            for each in statements:
                connection.execute(each)

    def violations(self) -> str:
        return "\n".join(check(self.chaos, self.history).violations)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path / "farm")
    yield world
    world.database.close()


def lose_the_job(world: World) -> None:
    tables = (JobEvent, Attempt, Plan, Submission, Job)
    world.run(*(delete(table) for table in tables))


def lose_the_plan(world: World) -> None:
    world.run(delete(Plan))


def give_another_attempts_plan(world: World) -> None:
    blob = world.put(json.dumps({"job": world.job_id, "fence": 7}))
    world.run(update(Plan).values(digest=str(blob.digest)))


def say_another_job(world: World) -> None:
    world.history.accepted["key"].append("another")


def end_it_twice(world: World) -> None:
    world.run(insert(JobEvent).values(job_id=world.job_id, kind="started", data={}))


def leave_an_attempt_open(world: World) -> None:
    world.run(insert(Attempt).values(job_id=world.job_id, fence=0, number=1, worker_id="worker"))


def try_it_too_often(world: World) -> None:
    for fence in (-3, -2, -1):
        lost = {"number": 1, "worker_id": "worker", "outcome": "lost", "ended_at": db_now()}
        world.run(insert(Attempt).values(job_id=world.job_id, fence=fence, **lost))


def damage_a_blob(world: World) -> None:
    path = next((world.chaos.artifacts / "sha256").glob("*/*"))
    path.chmod(0o600)
    path.write_bytes(b"x" + path.read_bytes()[1:])


def lose_an_entry_of_a_timing_cache(world: World) -> None:
    for revision, text in enumerate(("a b", "b c"), start=1):
        digest = str(world.put(text).digest)
        fields = {"gpu": "l4", "runtime": "tensorrt-10.16.1", "size_bytes": 3}
        world.run(insert(TimingCache).values(key="k", revision=revision, digest=digest, **fields))


def leave_finished_work(world: World) -> None:
    (world.chaos.home / "scratch" / "spool" / "job.1").mkdir(parents=True)


def leave_an_upload(world: World) -> None:
    world.chaos.staging.mkdir()
    (world.chaos.staging / "upload").touch()


def run_two_on_one_gpu(world: World) -> None:
    line = {"event": "conflict", "gpu": "GPU-1", "child": "1 1", "at": 1}
    (world.chaos.folder / "intervals").write_text(json.dumps(line) + "\n")


def say_that_it_was_cancelled(world: World) -> None:
    world.history.cancelled.add(world.job_id)


DAMAGES: dict[str, tuple[Callable[[World], None], str]] = {
    each.__name__: (each, word)
    for each, word in (
        (lose_the_job, "is lost"),
        (lose_the_plan, "0 plans"),
        (give_another_attempts_plan, "its plan is of"),
        (say_another_job, "answered with jobs"),
        (end_it_twice, "started after succeeded"),
        (leave_an_attempt_open, "an attempt is open"),
        (try_it_too_often, "4 attempts"),
        (damage_a_blob, "has other bytes"),
        (lose_an_entry_of_a_timing_cache, "lost {'a'}"),
        (leave_finished_work, "attempts are left"),
        (leave_an_upload, "uploads are left"),
        (run_two_on_one_gpu, "two children on one GPU"),
        (say_that_it_was_cancelled, "confirmed as cancelled"),
    )
}


def test_a_farm_at_rest_has_no_violations(world: World) -> None:
    assert world.violations() == ""


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_found(world: World, damage: str) -> None:
    do, word = DAMAGES[damage]
    do(world)
    assert word in world.violations()


def test_a_process_that_is_left_is_found(world: World) -> None:
    env = os.environ | {"CHAOS_FOLDER": str(world.chaos.folder)}
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], env=env) as process:
        assert "processes are left" in world.violations()
        process.kill()


def test_a_lock_that_is_held_is_found(world: World) -> None:
    path = world.chaos.folder / "GPU-1.live"
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert "locks are held: ['GPU-1.live']" in world.violations()
