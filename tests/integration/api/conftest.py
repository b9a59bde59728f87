"""One farm per module, on a database and folders of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from secrets import token_hex

import httpx
import pytest
from psycopg import sql

from tests.integration.api.world import World, client, open_farm, serving
from tests.services import PostgresServer
from trtfarm.contract.jobs import Scope
from trtfarm.inspection.pool import InspectionPool
from trtfarm_api.farm import Farm
from trtfarm_db import schema
from trtfarm_db.engine import Database
from trtfarm_db.repositories.keys import KeyRepository
from trtfarm_db.settings import DatabaseSettings

Caller = Callable[..., httpx.Client]


@pytest.fixture(scope="session")
def migrated(postgres_server: PostgresServer) -> Iterator[str]:
    """The name of a database to copy: migrations are slow, copies are not."""
    with postgres_server.database() as url:
        database = Database.open(DatabaseSettings.model_validate({"url": url}), "trtfarm-test")
        schema.upgrade(database)
        database.close()
        yield url.rpartition("/")[2]


@pytest.fixture(scope="session")
def inspection() -> Iterator[InspectionPool]:
    with InspectionPool() as pool:
        pool.warm()
        yield pool


@pytest.fixture(scope="module")
def farm_url(postgres_server: PostgresServer, migrated: str) -> Iterator[str]:
    name = f"trtfarm_test_{token_hex(8)}"
    made = sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), sql.Identifier(migrated))
    postgres_server.execute(made)
    yield postgres_server.url(name)
    postgres_server.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture(scope="module")
def farm(
    farm_url: str, tmp_path_factory: pytest.TempPathFactory, inspection: InspectionPool
) -> Iterator[Farm]:
    farm = open_farm(farm_url, tmp_path_factory.mktemp("farm"), inspection)
    yield farm
    farm.database.close()


@pytest.fixture(scope="module")
def world(farm: Farm) -> Iterator[World]:
    """A farm whose workers have been seen: nothing in it is shared with other modules."""
    with serving(farm) as url, client(url) as http:
        world = World(farm, url, http)
        world.register_workers()
        yield world


@pytest.fixture
def another_farm(farm_url: str, tmp_path: Path, inspection: InspectionPool) -> Iterator[Farm]:
    """The module's database, and empty folders; nobody serves it yet."""
    farm = open_farm(farm_url, tmp_path, inspection)
    yield farm
    farm.database.close()


@pytest.fixture(scope="module")
def locked(
    farm_url: str, tmp_path_factory: pytest.TempPathFactory, inspection: InspectionPool
) -> Iterator[World]:
    """Its own requests are an administrator's."""
    farm = open_farm(farm_url, tmp_path_factory.mktemp("farm"), inspection, require_keys=True)
    with farm.database.transaction() as connection:
        _, key = KeyRepository(connection).create("admin", Scope.ADMIN)
    with serving(farm) as url, client(url, key) as http:
        world = World(farm, url, http)
        world.register_workers()
        yield world
    farm.database.close()


@pytest.fixture
def caller(locked: World) -> Iterator[Caller]:
    """Makes a client with a new key of a scope, or with a given key, or with none."""
    clients = []

    def make(scope: Scope | None = None, key: str | None = None) -> httpx.Client:
        if scope is not None:
            with locked.farm.database.transaction() as connection:
                _, key = KeyRepository(connection).create("test", scope)
        clients.append(client(locked.url, key))
        return clients[-1]

    yield make
    for each in clients:
        each.close()
