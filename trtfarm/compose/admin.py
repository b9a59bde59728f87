"""What an operator does with the database directly."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from trtfarm.compose.settings import ApiSettings
from trtfarm_db import schema
from trtfarm_db.engine import Database

if TYPE_CHECKING:
    from trtfarm_db.repositories.keys import KeyRepository


@contextlib.contextmanager
def _database(config: Path | None) -> Iterator[Database]:
    database = Database.open(ApiSettings.load(config).database, "trtfarm-admin")
    try:
        yield database
    finally:
        database.close()


def upgrade_database(config: Path | None) -> tuple[str | None, str]:
    """The schema's revision before and after."""
    with _database(config) as database:
        return schema.upgrade(database)


def make_roles(config: Path | None, prefix: str, passwords: Mapping[str, str]) -> Sequence[str]:
    """Makes the farm's roles in PostgreSQL, connected as an administrator; returns their names."""
    from trtfarm_db import roles

    with _database(config) as database, database.transaction() as connection:
        return roles.make(connection, prefix, passwords)


def roles_script(config: Path | None, prefix: str) -> str:
    """The same as SQL for psql; connects to nothing."""
    from trtfarm_db import roles

    return roles.script(prefix, ApiSettings.load(config).database)


@contextlib.contextmanager
def key_repository(config: Path | None) -> Iterator[KeyRepository]:
    """In a transaction that ends with the block."""
    from trtfarm_db.repositories.keys import KeyRepository

    with _database(config) as database:
        schema.require_current(database)
        with database.transaction() as connection:
            yield KeyRepository(connection)
