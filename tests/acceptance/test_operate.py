"""What an operator gets wrong is said in one line, with an exit status and without a traceback."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from port_for import select_random

from tests import services
from tests.acceptance.farms import Done, Farm, a_farm, run_cli


@pytest.fixture(scope="module")
def farm(
    postgres_server: services.PostgresServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Farm]:
    """A database that is ready, and no process."""
    with a_farm(tmp_path_factory.mktemp("farm"), postgres_server) as farm:
        yield farm


def run(farm: Farm, *command: str, **settings: str) -> Done:
    return run_cli(*command, env=farm.env | settings, seconds=60)


NOBODY = f"postgresql+psycopg://nobody@127.0.0.1:{select_random()}/none"


@pytest.mark.parametrize(
    ("part", "settings", "code", "told"),
    [
        ("serve", {"TRTFARM_DATABASE_URL": NOBODY}, 5, "DB_UNAVAILABLE"),
        ("worker", {"TRTFARM_DATABASE_URL": NOBODY}, 5, "DB_UNAVAILABLE"),
        ("serve", {"TRTFARM_DATABASE_URL": "nonsense"}, 2, "database"),
        ("worker", {"TRTFARM_DATABASE_URL": "mysql://127.0.0.1/none"}, 2, "mysql"),
        ("serve", {"TRTFARM_REDIS_URL": "nonsense"}, 2, "redis.url"),
        ("worker", {"TRTFARM_STORE_URL": "nonsense"}, 2, "store.url"),
        ("serve", {"TRTFARM_DATABSE_URL": NOBODY}, 2, "Did you mean TRTFARM_DATABASE_URL?"),
        ("worker", {"TRTFARM_WORKERS_SLOTS": "2"}, 2, "Did you mean TRTFARM_WORKER_SLOTS?"),
        ("worker", {"TRTFARM_STORE_URL": "file:///proc/none"}, 2, "/proc/none"),
    ],
)
def test_what_both_need(farm: Farm, part: str, settings: dict[str, str], code: int, told: str) -> None:
    done = run(farm, part, **settings)
    assert done.code == code, done
    assert told in done.err


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"TRTFARM_WORKER_SLOTS": "none"}, "worker.slots"),
        ({"TRTFARM_WORKER_SLOT": "1"}, "worker.slot"),
        ({"TRTFARM_WORKER_SCRATCH": "/proc/none"}, "/proc/none"),
        ({"TRTFARM_WORKER_RUNTIME": "openvino"}, "worker.runtime"),
    ],
)
def test_worker(farm: Farm, settings: dict[str, str], told: str) -> None:
    done = run(farm, "worker", **settings)
    assert done.code == 2, done
    assert told in done.err


def test_serve_on_a_port_in_use(farm: Farm) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        done = run(farm, "serve", "--port", str(taken.getsockname()[1]))
    assert done.code == 2, done
    assert "Cannot listen on" in done.err


def test_without_keys_on_loopback_only(farm: Farm) -> None:
    done = run(farm, "serve", "--host", "0.0.0.0", TRTFARM_SERVER_REQUIRE_KEYS="false")
    assert done.code == 2, done
    assert "listens on loopback only" in done.err
    assert "server.require_keys" in done.err


def test_a_first_key_that_cannot_be_written(
    farm: Farm, postgres_server: services.PostgresServer, tmp_path: Path
) -> None:
    (tmp_path / "admin.key").mkdir()
    with postgres_server.database() as url:
        run(farm, "db", "upgrade", TRTFARM_DATABASE_URL=url)
        done = run(farm, "serve", TRTFARM_DATABASE_URL=url, TRTFARM_SERVER_STAGING=str(tmp_path))
        assert done.code == 2, done
        assert "trtfarm key create" in done.err
        assert run(farm, "key", "list", "--json", TRTFARM_DATABASE_URL=url).document["keys"] == []


def test_keys(farm: Farm) -> None:
    made = run(farm, "key", "create", "ci", "--scope", "submit", "--json").document
    assert made["key"].startswith("trtfarm_")
    listed = run(farm, "key", "list", "--json")
    assert (made["key_id"], "ci") in [(each["key_id"], each["name"]) for each in listed.document["keys"]]
    assert made["key"] not in listed.out
    assert run(farm, "key", "revoke", made["key_id"], "--json").document["state"] == "revoked"
    listed = run(farm, "key", "list", "--json")
    (revoked,) = [each for each in listed.document["keys"] if each["key_id"] == made["key_id"]]
    assert revoked["revoked_at"]
    done = run(farm, "key", "revoke", "nobody", "--json")
    assert (done.code, done.error["code"]) == (3, "NOT_FOUND")


def test_a_database_without_its_schema(farm: Farm, postgres_server: services.PostgresServer) -> None:
    with postgres_server.database() as url:
        for part in ("serve", "worker"):
            done = run(farm, part, TRTFARM_DATABASE_URL=url)
            assert done.code == 2, done
            assert "trtfarm db upgrade" in done.err
        first = run(farm, "db", "upgrade", "--json", TRTFARM_DATABASE_URL=url).document
        again = run(farm, "db", "upgrade", "--json", TRTFARM_DATABASE_URL=url).document
    assert first["before"] is None
    assert again["before"] == again["after"] == first["after"]


def test_a_settings_file(farm: Farm, tmp_path: Path) -> None:
    path = tmp_path / "worker.toml"
    for text, told in (("[worker]\nslotz = 1\n", "worker.slotz"), ("[worker\n", "worker.toml")):
        path.write_text(text)
        done = run(farm, "worker", "--config", str(path))
        assert done.code == 2, done
        assert told in done.err
    done = run(farm, "worker", "--config", str(tmp_path / "none.toml"))
    assert done.code == 2
    assert "none.toml" in done.err
