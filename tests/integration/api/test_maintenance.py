"""Uploads that rest, bytes that rot, several API processes that tidy up: the real API on PostgreSQL."""

from __future__ import annotations

import os
import threading
import time
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy import text, update

from tests.integration.api.test_lost_blobs import quarantined
from tests.integration.api.wires import half_sent
from tests.integration.api.world import RTX, World, onnx_model, problem
from trtfarm.contract.leases import WorkerInfo
from trtfarm_api.farm import Farm
from trtfarm_api.maintenance.keeper import Keeper
from trtfarm_api.maintenance.scrub import Scrubbed, Scrubber
from trtfarm_api.maintenance.settings import MaintenanceSettings
from trtfarm_api.maintenance.uploads import Swept, UploadSweeper
from trtfarm_db.base import db_now
from trtfarm_db.leadership import Leadership
from trtfarm_db.models import Artifact, Upload, Worker
from trtfarm_db.repositories.workers import WorkerRepository

DAY = 86400.0


def metric(world: World, name: str) -> float:
    lines = world.http.get("/metrics").text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.split("{")[0].split()[0] == name)


# --- uploads ---


def sweep(farm: Farm, **settings: float) -> Swept:
    return UploadSweeper(farm.database, farm.settings.staging, MaintenanceSettings(**settings)).run()


def announced(world: World, sent: int = 30, *, age_seconds: float = 25 * 3600) -> str:
    """An upload that stands at so many bytes, for so long."""
    data = onnx_model()
    upload_id = str(world.announce(data).json()["upload_id"])
    if sent:
        world.send(upload_id, data[:sent])
        path = world.farm.settings.staging / upload_id
        os.utime(path, (time.time() - age_seconds,) * 2)
    with world.farm.database.transaction() as connection:
        created = {"created_at": db_now(-age_seconds)}
        connection.execute(update(Upload).where(Upload.id == upload_id).values(created))
    return upload_id


@pytest.mark.parametrize("sent", [0, 30])
def test_an_upload_that_rests_expires(world: World, sent: int) -> None:
    old, young = announced(world, sent), announced(world, sent, age_seconds=23 * 3600)
    sweeper = UploadSweeper(world.farm.database, world.farm.settings.staging, MaintenanceSettings())
    assert (sweeper.look(), sweep(world.farm)) == (Swept(1, sent), Swept(1, sent))
    assert old not in world.staged()
    hint = problem(world.http.get(f"/v1/uploads/{old}"), 410, "UPLOAD_EXPIRED")["hint"]
    assert "again" in hint
    problem(world.send(old, b"more", sent), 410, "UPLOAD_EXPIRED")
    assert world.get(f"/v1/uploads/{young}")["offset"] == sent
    assert sweep(world.farm) == Swept(0, 0)


def test_who_announces_it_again_starts_anew(world: World) -> None:
    data = onnx_model()
    upload_id = str(world.announce(data).json()["upload_id"])
    with world.farm.database.transaction() as connection:
        connection.execute(update(Upload).where(Upload.id == upload_id).values(created_at=db_now(-2 * DAY)))
    assert sweep(world.farm).uploads == 1
    again = world.announce(data)
    assert again.status_code == 201
    assert again.json()["upload_id"] != upload_id
    assert world.send(again.json()["upload_id"], data).json()["complete"]


def test_an_upload_under_way_does_not_expire(world: World) -> None:
    """However slow: a request holds it."""
    data = os.urandom(1000)
    upload_id = str(world.announce(data, kind="external_data").json()["upload_id"])
    with half_sent(world.url, upload_id, data, sent=10):
        end = time.monotonic() + 20
        while upload_id not in world.staged():
            assert time.monotonic() < end
            time.sleep(0.01)
        with world.farm.database.transaction() as connection:
            old = {"created_at": db_now(-2 * DAY)}
            connection.execute(update(Upload).where(Upload.id == upload_id).values(old))
        os.utime(world.farm.settings.staging / upload_id, (time.time() - 2 * DAY,) * 2)
        assert sweep(world.farm).uploads == 0
    assert world.get(f"/v1/uploads/{upload_id}")["complete"] is False


def test_litter_in_staging_goes(world: World) -> None:
    """A killed API leaves the file of an upload that is complete."""
    world.farm.settings.staging.mkdir(exist_ok=True)
    names = {uuid4().hex: 25 * 3600, uuid4().hex: 23 * 3600}
    for name, age_seconds in names.items():
        path = world.farm.settings.staging / name
        path.write_bytes(b"12345")
        os.utime(path, (time.time() - age_seconds,) * 2)
    old, young = names
    assert sweep(world.farm) == Swept(0, 5)
    assert old not in world.staged()
    assert young in world.staged()


def test_rows_of_uploads_that_ended_long_ago_go(world: World) -> None:
    data = onnx_model()
    upload_id = str(world.announce(data).json()["upload_id"])
    world.send(upload_id, data)
    with world.farm.database.transaction() as connection:
        old = {"completed_at": db_now(-5 * DAY)}
        connection.execute(update(Upload).where(Upload.id == upload_id).values(old))
    sweep(world.farm)
    problem(world.http.get(f"/v1/uploads/{upload_id}"), 404, "NOT_FOUND")


# --- scrubbing ---


def scrub(
    world: World, older_than_seconds: float = 0, *, rate: int = 1 << 30, seconds: float = 60
) -> Scrubbed:
    farm, settings = world.farm, MaintenanceSettings(scrub_bytes_per_second=rate)
    scrubber = Scrubber(farm.database, farm.store, farm.blobs, farm.metrics, settings)
    return scrubber.run(older_than_seconds, threading.Event(), seconds)


def verified(world: World, digest: str, days_ago: float) -> None:
    with world.farm.database.transaction() as connection:
        ago = {"verified_at": db_now(-days_ago * DAY)}
        connection.execute(update(Artifact).where(Artifact.digest == digest).values(ago))


def rot(path: Path) -> None:
    """One bit, in place; time, size and inode stay as they were, and so does the entity tag."""
    before = path.stat()
    with path.open("r+b") as file:
        first = file.read(1)
        file.seek(0)
        file.write(bytes([first[0] ^ 1]))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_bytes_that_rot_are_found(world: World) -> None:
    plan, sound = world.built(os.urandom(100_000)), world.built(os.urandom(1000))
    rot(world.blob(plan.digest))
    lost = metric(world, "trtfarm_artifacts_lost_total")
    assert world.post_job(plan.request).json()["disposition"] == "reused"  # its etag says nothing
    done = scrub(world)
    assert done.lost == [plan.digest]
    assert done.artifacts >= 4
    assert len(quarantined(world, plan)) == 1
    assert metric(world, "trtfarm_artifacts_lost_total") == lost + 1
    problem(world.http.get(plan.content), 410, "BLOB_MISSING")
    assert world.http.get(sound.content).content == sound.data
    again = world.post_job(plan.request).json()
    assert again["disposition"] == "created"
    world.finish(world.claim(again["job"]["job_id"]), plan.data)
    assert world.http.get(plan.content).content == plan.data
    assert scrub(world).lost == []


@pytest.mark.parametrize("how", ["removed", "truncated"])
def test_bytes_that_are_missing_are_found(world: World, how: str) -> None:
    plan = world.built(os.urandom(1000))
    path = world.blob(plan.digest)
    path.unlink() if how == "removed" else os.truncate(path, 999)
    assert scrub(world).lost == [plan.digest]
    assert world.post_job(plan.request).json()["disposition"] == "created"


def test_a_store_that_is_away_is_not_taken_for_empty(world: World) -> None:
    from trtfarm.errors import ConfigurationError, UnavailableError

    plan = world.built(os.urandom(1000))
    root = world.blob(plan.digest).parents[2]
    aside = root.rename(root.with_name("aside"))
    with pytest.raises((ConfigurationError, UnavailableError)):
        scrub(world)
    aside.rename(root)
    assert world.http.get(plan.content).content == plan.data


def test_the_longest_unread_come_first_and_others_not_at_all(world: World) -> None:
    plans = [world.built(os.urandom(400_000)) for _ in range(3)]
    for days, plan in zip((31, 33, 32), plans, strict=True):
        verified(world, plan.digest, days)
    for plan in plans:
        rot(world.blob(plan.digest))
    assert scrub(world, 30 * DAY).lost == [plans[1].digest, plans[2].digest, plans[0].digest]
    assert scrub(world, 30 * DAY) == Scrubbed(0, 0, [])


def test_it_is_not_faster_than_it_may_and_ends_in_time(world: World) -> None:
    plan = world.built(os.urandom(4 << 20))
    verified(world, plan.digest, 40)
    started = time.monotonic()
    assert scrub(world, 30 * DAY, rate=4 << 20).artifacts == 1
    assert time.monotonic() - started >= 0.9
    verified(world, plan.digest, 40)
    started = time.monotonic()
    assert scrub(world, 30 * DAY, rate=1 << 10, seconds=0.2).artifacts == 0
    assert time.monotonic() - started < 20


# --- by itself ---


def test_a_round_does_it_all(world: World) -> None:
    plan, upload_id = world.built(os.urandom(1000)), announced(world)
    loose = world.publish(os.urandom(1000))
    os.utime(world.blob(loose.digest), (time.time() - 4 * DAY,) * 2)
    rot(world.blob(plan.digest))
    verified(world, plan.digest, 40)
    with world.farm.database.transaction() as connection:
        gone = WorkerInfo(
            worker_id="gone", hostname="h", runtime=RTX, platform="linux-x86_64", gpus=("cc-8.6",), slots=1
        )
        WorkerRepository(connection).register(gone)
        connection.execute(update(Worker).where(Worker.id == "gone").values(last_seen_at=db_now(-91 * DAY)))
    counted = {
        name: metric(world, name)
        for name in (
            "trtfarm_artifacts_collected_total",
            "trtfarm_artifacts_lost_total",
            "trtfarm_uploads_expired_total",
        )
    }
    keeper = Keeper(world.farm)
    keeper.round(time.monotonic() + 60)
    assert {name: metric(world, name) - before for name, before in counted.items()} == dict.fromkeys(
        counted, 1
    )
    assert metric(world, "trtfarm_maintenance_leader") == 1
    assert metric(world, "trtfarm_scrubbed_bytes_total") >= 1000
    assert metric(world, "trtfarm_freed_bytes_total") >= 1030
    assert time.time() - metric(world, "trtfarm_maintenance_done_timestamp_seconds") < 60
    problem(world.http.get(f"/v1/uploads/{upload_id}"), 410, "UPLOAD_EXPIRED")
    assert not world.blob(loose.digest).exists()
    with world.farm.database.transaction() as connection:
        assert "gone" not in {each.worker_id for each in WorkerRepository(connection).views(gone=True)}
    keeper._leadership.give_up()


def test_the_thread_goes_round(world: World) -> None:
    farm = replace(world.farm, maintenance=MaintenanceSettings(period_seconds=0.5))
    upload_id = announced(world)
    keeper = Keeper(farm)
    keeper.start()
    try:
        end = time.monotonic() + 30
        while world.http.get(f"/v1/uploads/{upload_id}").status_code != 410:
            assert time.monotonic() < end
            time.sleep(0.05)
    finally:
        keeper.stop()


def test_one_process_leads(world: World) -> None:
    """Another one follows it when it ends, is cut off, or dies."""
    database = world.farm.database
    first, second = Leadership(database), Leadership(database)
    assert (first.held(), second.held()) == (True, False)
    assert (first.held(), second.held()) == (True, False)
    first.give_up()
    assert (second.held(), first.held()) == (True, False)
    assert second._connection is not None
    pid = second._connection.execute(text("SELECT pg_backend_pid()")).scalar_one()
    with database.transaction() as connection:
        connection.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": pid})
    end = time.monotonic() + 20
    while not first.held():
        assert time.monotonic() < end
        time.sleep(0.05)
    assert second.held() is False
    first.give_up()
