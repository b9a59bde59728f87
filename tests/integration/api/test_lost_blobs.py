"""Plans whose bytes are gone, damaged, or only touched: none is served wrong, all can be had again."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.api.world import Built, World, problem


def removed(path: Path) -> None:
    path.unlink()


def flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def shortened(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def lengthened(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"!")


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def replaced(path: Path) -> None:
    other = path.with_name("other")
    other.write_bytes(bytes(path.stat().st_size))
    other.replace(path)


DAMAGES = [removed, flipped, shortened, lengthened, emptied, replaced]
damages = pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)


def quarantined(world: World, plan: Built) -> list[Path]:
    root = world.blob(plan.digest).parents[2]
    return list((root / "quarantine").glob(f"{plan.digest.hex}.*"))


@damages
def test_it_is_not_served(world: World, damage: Callable[[Path], None]) -> None:
    """Not a byte of it, not now and not later; what was damaged is kept for people to look at."""
    plan = world.built(os.urandom(100_000))
    damage(world.blob(plan.digest))
    code = "BLOB_MISSING" if damage is removed else "BLOB_CORRUPT"
    problem(world.http.get(plan.content, headers={"Range": "bytes=0-9"}), 410, code)
    problem(world.http.get(plan.content), 410, "BLOB_MISSING")
    assert world.http.head(plan.content).status_code == 410
    assert len(quarantined(world, plan)) == (damage is not removed)
    assert world.get(f"/v1/plans/{plan.digest}") == plan.job["plan"]


@damages
def test_it_is_built_again(world: World, damage: Callable[[Path], None]) -> None:
    plan = world.built(os.urandom(100_000))
    damage(world.blob(plan.digest))
    again = world.post_job(plan.request)
    assert (again.status_code, again.json()["disposition"]) == (201, "created")
    job_id = again.json()["job"]["job_id"]
    assert job_id != plan.job["job_id"]
    assert world.post_job(plan.request).json()["disposition"] == "joined"
    world.finish(world.claim(job_id), plan.data)
    assert world.http.get(plan.content).content == plan.data
    reused = world.post_job(plan.request).json()
    assert (reused["disposition"], reused["job"]["job_id"]) == ("reused", job_id)


def test_it_is_built_again_after_somebody_noticed(world: World) -> None:
    plan = world.built(os.urandom(1000))
    flipped(world.blob(plan.digest))
    problem(world.http.get(plan.content), 410, "BLOB_CORRUPT")
    assert world.post_job(plan.request).json()["disposition"] == "created"


def test_it_may_come_out_different(world: World) -> None:
    """TensorRT need not be deterministic; the new plan counts."""
    plan = world.built(b"first build")
    world.blob(plan.digest).unlink()
    again = world.built(b"second build", plan.request)
    assert world.post_job(plan.request).json()["job"]["plan"]["digest"] == again.digest
    problem(world.http.get(plan.content), 410, "BLOB_MISSING")
    assert world.http.get(again.content).content == b"second build"


def touched(path: Path) -> None:
    os.utime(path)


def restored(path: Path) -> None:
    """As from a backup: the same bytes in another file."""
    copy = path.with_name("copy")
    copy.write_bytes(path.read_bytes())
    copy.replace(path)


@pytest.mark.parametrize("change", [touched, restored], ids=lambda change: change.__name__)
def test_it_is_only_touched(world: World, change: Callable[[Path], None]) -> None:
    """Read again, found right, and trusted from then on."""
    plan = world.built(os.urandom(100_000))
    change(world.blob(plan.digest))
    assert world.http.get(plan.content).content == plan.data
    assert world.post_job(plan.request).json()["disposition"] == "reused"
    assert not quarantined(world, plan)
    with world.farm.database.transaction() as connection:
        from trtfarm_db.repositories.artifacts import ArtifactRepository

        known = ArtifactRepository(connection).find(plan.digest)
    found = world.farm.store.stat(plan.digest)
    assert known
    assert found
    assert known.etag == found.etag


def test_other_artifacts(world: World) -> None:
    plan = world.built(b"with a log")
    for name in ("io", "log"):
        digest = plan.job["plan"][name]
        data = world.blob(digest).read_bytes()
        world.blob(digest).write_bytes(data + b"?")
        problem(world.http.get(f"/v1/artifacts/{digest}"), 410, "BLOB_CORRUPT")
        problem(world.http.get(f"/v1/artifacts/{digest}"), 404, "BLOB_MISSING")
    problem(world.http.get(f"/v1/jobs/{plan.job['job_id']}/log"), 404, "BLOB_MISSING")
    assert world.http.get(plan.content).content == plan.data
