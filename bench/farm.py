"""A farm of real processes: `trtfarm serve` and workers, on private PostgreSQL and Redis."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from port_for import select_random
from redis import Redis

from bench.figures import BenchError
from tests import services
from trtfarm.contract.jobs import Scope
from trtfarm.errors import FarmUnreachableError
from trtfarm.sdk.client import FarmClient
from trtfarm.store import ArtifactStore, StoreSettings
from trtfarm_db import schema
from trtfarm_db.engine import Database
from trtfarm_db.repositories.keys import KeyRepository
from trtfarm_db.settings import DatabaseSettings

HOST = "127.0.0.1"
_START_SECONDS = 120.0
_STOP_SECONDS = 20.0


@dataclass(frozen=True)
class Servers:
    """What every figure may use. Figures run one after another and share nothing but these."""

    postgres: services.PostgresServer
    redis: services.RedisServer

    @contextlib.contextmanager
    def database(self) -> Iterator[str]:
        """The URL of a fresh database; Redis is emptied too."""
        if self.redis.private:
            with Redis.from_url(self.redis.url) as client:
                client.flushall()
        with self.postgres.database() as url:
            yield url


@contextlib.contextmanager
def servers() -> Iterator[Servers]:
    try:
        with services.postgres_server() as postgres, services.redis_server() as redis:
            yield Servers(postgres, redis)
    except services.ServiceUnavailableError as error:
        raise BenchError(str(error)) from error


@dataclass(frozen=True)
class Farm:
    """``database`` and ``store`` are the farm's own, for figures that play a worker.

    ``pids``: of the API, then of the workers.
    """

    port: int
    folder: Path
    database: Database
    store: ArtifactStore
    database_url: str
    key: str
    pids: list[int] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"


@contextlib.contextmanager
def farm(servers: Servers, *, workers: int) -> Iterator[Farm]:
    """One API process and ``workers`` worker processes of one slot each, all of them ready."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="trtfarm-bench-")))
        url = stack.enter_context(servers.database())
        database = open_database(url)
        stack.callback(database.close)
        schema.upgrade(database)
        store = StoreSettings(url=(folder / "artifacts").as_uri())
        with database.transaction() as connection:
            _, key = KeyRepository(connection).create("bench", Scope.ADMIN)
        here = Farm(select_random(), folder, database, ArtifactStore.open(store), url, key)
        environment = {
            "TRTFARM_DATABASE_URL": url,
            "TRTFARM_REDIS_URL": servers.redis.url,
            "TRTFARM_STORE_URL": store.url,
            "TRTFARM_SERVER_PORT": str(here.port),
            "TRTFARM_SERVER_STAGING": str(folder / "uploads"),
        }
        client = stack.enter_context(FarmClient(here.url, key))
        command = [sys.executable, "-m", "trtfarm"]
        serving = running([*command, "serve"], environment, lambda: _answers(client))
        here.pids.append(stack.enter_context(serving))
        for number in range(workers):
            more = environment | {
                "TRTFARM_WORKER_SLOTS": "1",
                "TRTFARM_WORKER_SCRATCH": str(folder / f"worker-{number}"),
            }
            ready = partial(lambda n: len(client.fleet().workers) > n, number)
            here.pids.append(stack.enter_context(running([*command, "worker"], more, ready)))
        yield here


def open_database(url: str) -> Database:
    return Database.open(DatabaseSettings.model_validate({"url": url}), "trtfarm-bench")


@contextlib.contextmanager
def running(
    command: Sequence[str], environment: Mapping[str, str], ready: Callable[[], bool]
) -> Iterator[int]:
    """The id of a process from when it is ready until the block ends.

    Raises:
        BenchError: with the end of its output, if it ends or does not get ready.
    """
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("TRTFARM_")}
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(
            command, env={**inherited, **environment}, stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
        try:
            end = time.monotonic() + _START_SECONDS
            while not ready():
                if process.poll() is not None or time.monotonic() > end:
                    log.seek(0)
                    raise BenchError(f"{' '.join(command)} does not start: {log.read()[-2000:]}")
                time.sleep(0.05)
            yield process.pid
        finally:
            process.terminate()
            try:
                process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _answers(client: FarmClient) -> bool:
    try:
        client.fleet()
    except FarmUnreachableError:
        return False
    return True
