"""``trtfarm gc`` and ``trtfarm scrub`` on a distributed farm and on an embedded one."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import services
from tests.acceptance.farms import Farm, a_farm, run_cli
from trtfarm.contract.leases import PublishedBlob
from trtfarm.store import ArtifactStore, StoreSettings
from trtfarm_db.engine import Database
from trtfarm_db.repositories.artifacts import ArtifactRepository
from trtfarm_db.settings import DatabaseSettings

DAYS = 86400


@pytest.fixture(scope="module")
def farm(
    postgres_server: services.PostgresServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Farm]:
    """A database and a store, and no process."""
    with a_farm(tmp_path_factory.mktemp("farm"), postgres_server) as farm:
        yield farm


def put(folder: Path, *, age_seconds: float = 0) -> tuple[PublishedBlob, Path]:
    digest, stored = ArtifactStore.open(StoreSettings(url=folder.as_uri())).put_bytes(os.urandom(1000))
    path = folder / "sha256" / digest.hex[:2] / digest.hex[2:]
    os.utime(path, (time.time() - age_seconds,) * 2)
    return PublishedBlob(digest=digest, size_bytes=1000, etag=stored.etag), path


@pytest.mark.parametrize("embedded", [False, True], ids=["distributed", "embedded"])
def test_garbage_goes_when_it_is_told_to(farm: Farm, *, embedded: bool) -> None:
    option = ["--embedded"] if embedded else []
    folder = farm.folder / ("home/artifacts" if embedded else "artifacts")
    if embedded:
        run_cli("gc", *option, env=farm.env)  # makes the farm
    _, old = put(folder, age_seconds=4 * DAYS)
    _, young = put(folder, age_seconds=2 * DAYS)
    planned = run_cli("gc", *option, "--dry-run", "--json", env=farm.env)
    assert (planned.code, planned.document["store"]["artifacts"]) == (0, 1), planned
    assert old.exists()
    done = run_cli("gc", *option, "--json", env=farm.env)
    assert (done.code, done.document["dry_run"]) == (0, False), done
    assert done.document["store"] == {
        "artifacts": 1, "size_bytes": 1000, "unknown": 1, "temporary_bytes": 0,
    }  # fmt: skip
    assert (old.exists(), young.exists()) == (False, True)
    said = run_cli("gc", *option, env=farm.env)
    assert "0 artifacts and 0 uploads removed" in said.err


def test_what_has_rotted_is_told(farm: Farm) -> None:
    blob, path = put(farm.folder / "artifacts")
    url = farm.env["TRTFARM_DATABASE_URL"]
    database = Database.open(DatabaseSettings.model_validate({"url": url}), "test")
    with database.transaction() as connection:
        ArtifactRepository(connection).add(blob, "plan")
    database.close()
    lately = run_cli("scrub", "--json", env=farm.env)
    assert (lately.code, lately.document["artifacts"]) == (0, 0)
    sound = run_cli("scrub", "--all", "--json", env=farm.env)
    assert (sound.code, sound.document) == (0, {"artifacts": 1, "size_bytes": 1000, "lost": []})
    path.write_bytes(bytes(1000))
    rotten = run_cli("scrub", "--all", "--json", env=farm.env)
    assert (rotten.code, rotten.document["lost"]) == (1, [str(blob.digest)])
    assert not path.exists()
    assert len(list((farm.folder / "artifacts/quarantine").iterdir())) == 1
