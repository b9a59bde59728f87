"""The migrations lead to what the models say, on both databases."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect, text
from sqlalchemy.types import TypeEngine

import trtfarm_db.models  # noqa: F401 - fills the metadata
from trtfarm.errors import ConfigurationError, DatabaseUnavailableError
from trtfarm_db import schema
from trtfarm_db.base import Base
from trtfarm_db.engine import Database

UPGRADE = """
import sys
from pydantic import SecretStr
from trtfarm_db.engine import Database
from trtfarm_db.schema import require_current, upgrade
from trtfarm_db.settings import DatabaseSettings
import alembic.command
database = Database.open(DatabaseSettings(url=SecretStr(sys.argv[1])), "upgrade")
print("ready", flush=True)
sys.stdin.readline()
print(*upgrade(database), flush=True)
require_current(database)
"""


def scripts(connection: Connection) -> ScriptDirectory:
    return ScriptDirectory.from_config(schema._config(connection))


def tables(database: Database) -> set[str]:
    return set(inspect(database.engine).get_table_names())


def indexes(connection: Connection) -> set[str]:
    """As the database itself writes them: with expressions, order and WHERE."""
    query = {
        "postgresql": "SELECT indexdef FROM pg_indexes WHERE schemaname = 'public'",
        "sqlite": "SELECT sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL",
    }[connection.dialect.name]
    found = connection.execute(text(query)).scalars()
    return {" ".join(each.split()) for each in found if "alembic" not in each}


def everything(connection: Connection) -> dict[str, Any]:
    """All that makes a schema, the checks and partial indexes included that Alembic does not compare."""
    inspector = inspect(connection)

    def described(value: Any) -> Any:
        return value.compile(connection.dialect) if isinstance(value, TypeEngine) else value

    def ordered(rows: Any) -> list[str]:
        return sorted(str(sorted((name, described(row[name])) for name in row)) for row in rows)

    return {
        table: {
            "columns": ordered(inspector.get_columns(table)),
            "primary key": ordered([inspector.get_pk_constraint(table)]),
            "foreign keys": ordered(inspector.get_foreign_keys(table)),
            "unique": ordered(inspector.get_unique_constraints(table)),
            "checks": ordered(inspector.get_check_constraints(table)),
        }
        for table in inspector.get_table_names()
        if table != "alembic_version"
    } | {"indexes": indexes(connection)}


def comparable(connection: Connection) -> Callable[..., bool]:
    """Alembic cannot compare an index with DESC on SQLite; `everything` does."""
    return lambda _item, name, *_: connection.dialect.name != "sqlite" or name != "ix_jobs_claim"


@contextmanager
def from_models(database: Database) -> Iterator[Connection]:
    """The tables as the models would make them; undone at the end."""
    with database.engine.connect() as connection, connection.begin() as transaction:
        Base.metadata.create_all(connection)
        yield connection
        transaction.rollback()


def test_an_upgrade_gives_exactly_the_metadata(empty_database):
    with from_models(empty_database) as connection:
        wanted = everything(connection)
    assert tables(empty_database) == set()
    before, after = schema.upgrade(empty_database)
    assert (before, after) == (None, schema.head())
    with empty_database.engine.connect() as connection:
        options = {"compare_type": True, "include_object": comparable(connection)}
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, Base.metadata) == []
        assert everything(connection) == wanted
    assert len(wanted["jobs"]["checks"]) == 4
    assert sum(" WHERE " in index for index in wanted["indexes"]) >= 8


def test_one_line_of_revisions_named_by_date(empty_database):
    with empty_database.engine.connect() as connection:
        directory = scripts(connection)
        revisions = [each.revision for each in directory.walk_revisions()][::-1]
        heads = directory.get_heads()
    assert heads == [revisions[-1]] == [schema.head()]
    assert revisions == sorted(set(revisions))
    names = sorted(path.stem for path in schema._versions().glob("*.py"))
    assert [name.partition("_")[0] for name in names] == revisions
    for name in names:
        date, _, words = name.partition("_")
        assert date.isdecimal()
        assert "20261101" <= date <= "2099"
        assert words


def test_an_upgrade_of_what_is_current_changes_nothing(empty_database):
    schema.upgrade(empty_database)
    with empty_database.engine.connect() as connection:
        before = everything(connection)
    assert schema.upgrade(empty_database) == (schema.head(), schema.head())
    with empty_database.engine.connect() as connection:
        assert everything(connection) == before


def test_two_processes_that_upgrade_at_once(empty_database):
    """Both are content, and one of them has done it."""
    url = empty_database.engine.url.render_as_string(hide_password=False)
    command_line = [sys.executable, "-c", UPGRADE, url]
    pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "env": dict(os.environ)}
    processes = [subprocess.Popen(command_line, **pipes) for _ in range(2)]
    try:
        for process in processes:
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            process.stdin.write("\n")
            process.stdin.flush()
        said = [process.communicate(timeout=60)[0].split() for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert [process.returncode for process in processes] == [0, 0]
    head = schema.head()
    assert sorted(said) == [[head, head], ["None", head]]


def test_an_upgrade_that_fails_leaves_nothing(empty_database):
    with empty_database.transaction() as connection:
        connection.execute(text("CREATE TABLE submissions (id INTEGER)"))  # the last one that it makes
    with pytest.raises(Exception, match="submissions"):
        schema.upgrade(empty_database)
    assert tables(empty_database) == {"submissions"}


def test_downgrade_and_upgrade_again(empty_database):
    schema.upgrade(empty_database)
    with empty_database.engine.connect() as connection:
        before = everything(connection)
    with empty_database.engine.begin() as connection:
        command.downgrade(schema._config(connection), "base")
    assert tables(empty_database) == {"alembic_version"}
    schema.upgrade(empty_database)
    with empty_database.engine.connect() as connection:
        assert everything(connection) == before


# --- require_current ---


def test_an_empty_database_is_not_current(empty_database):
    with pytest.raises(ConfigurationError, match=r"has schema \(none\)") as refusal:
        schema.require_current(empty_database)
    assert refusal.value.hint == "Run: trtfarm db upgrade"


def test_a_database_of_another_version_is_not_current(empty_database):
    schema.upgrade(empty_database)
    schema.require_current(empty_database)
    with empty_database.transaction() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '20200101'"))
    with pytest.raises(ConfigurationError, match=f"has schema 20200101, this version needs {schema.head()}"):
        schema.require_current(empty_database)


def test_a_downgraded_database_is_not_current(empty_database):
    schema.upgrade(empty_database)
    with empty_database.engine.begin() as connection:
        command.downgrade(schema._config(connection), "base")
    with pytest.raises(ConfigurationError, match=r"\(none\)"):
        schema.require_current(empty_database)


def test_a_server_that_is_not_there(postgres_url, open_database):
    gone = postgres_url.replace("/trtfarm_test_", "/nowhere_")
    database = open_database(gone)
    with pytest.raises(DatabaseUnavailableError):
        schema.require_current(database)
    with pytest.raises(DatabaseUnavailableError):
        schema.upgrade(database)
