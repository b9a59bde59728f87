"""What every test may ask for: a clean environment, a fresh database, a Redis."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Iterator

import pytest
from redis import Redis

from tests import services


def pytest_configure(config: pytest.Config) -> None:
    """No setting of the person who runs the tests reaches them, and no test reaches their farm."""
    for name in [name for name in os.environ if name.startswith("TRTFARM_")]:
        if not name.startswith("TRTFARM_TEST_"):
            del os.environ[name]
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background ignores it
    home = tempfile.TemporaryDirectory(prefix="trtfarm-home-")
    config.add_cleanup(home.cleanup)
    os.environ["TRTFARM_HOME"] = home.name


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[services.PostgresServer]:
    with services.postgres_server() as server:
        yield server


@pytest.fixture
def postgres_url(postgres_server: services.PostgresServer) -> Iterator[str]:
    """A fresh empty database."""
    with postgres_server.database() as url:
        yield url


@pytest.fixture(scope="session")
def redis_server() -> Iterator[services.RedisServer]:
    with services.redis_server() as server:
        yield server


@pytest.fixture
def redis_url(redis_server: services.RedisServer) -> str:
    """An empty database of a private server; one that was given stays as it is: prefix your keys."""
    if redis_server.private:
        with Redis.from_url(redis_server.url) as client:
            client.flushdb()
    return redis_server.url
