"""Every test that asks for `database` runs on PostgreSQL and on SQLite."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from pydantic import SecretStr
from sqlalchemy import delete

from tests.integration.farm import Farm
from tests.services import PostgresServer
from trtfarm_db.base import Base
from trtfarm_db.engine import Database
from trtfarm_db.schema import upgrade
from trtfarm_db.settings import DatabaseSettings

BACK_ENDS = ("postgresql", "sqlite")


def opened(url: str) -> Database:
    return Database.open(DatabaseSettings(url=SecretStr(url)), "trtfarm-test")


@pytest.fixture
def open_database() -> Iterator[Callable[[str], Database]]:
    """By URL; closed at the end."""
    with ExitStack() as stack:

        def open_one(url: str) -> Database:
            database = opened(url)
            stack.callback(database.close)
            return database

        yield open_one


@pytest.fixture(params=BACK_ENDS)
def empty_database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """Without any table."""
    if request.param == "postgresql":
        database = opened(request.getfixturevalue("postgres_url"))
    else:
        database = opened(f"sqlite:///{tmp_path / 'trtfarm.db'}")
    yield database
    database.close()


@pytest.fixture(scope="session")
def migrated_postgres(postgres_server: PostgresServer) -> Iterator[Database]:
    """One for all tests: making one takes longer than most of them."""
    with postgres_server.database() as url:
        database = opened(url)
        upgrade(database)
        yield database
        database.close()


@pytest.fixture(scope="session")
def migrated_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    database = opened(f"sqlite:///{tmp_path_factory.mktemp('sqlite') / 'trtfarm.db'}")
    upgrade(database)
    yield database
    database.close()


@pytest.fixture(params=BACK_ENDS)
def database(request: pytest.FixtureRequest) -> Database:
    """With all tables and no row."""
    fixture = "migrated_postgres" if request.param == "postgresql" else "migrated_sqlite"
    database: Database = request.getfixturevalue(fixture)
    with database.transaction() as connection:
        for table in reversed(Base.metadata.sorted_tables):
            connection.execute(delete(table))
    return database


@pytest.fixture
def farm(database: Database) -> Farm:
    """With the one model that `tests.values` has."""
    farm = Farm(database)
    farm.add_model()
    return farm
