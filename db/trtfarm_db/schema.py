"""Bringing a database to the schema of this version."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sqlalchemy import Connection, text
from sqlalchemy.exc import OperationalError

from trtfarm.errors import ConfigurationError, DatabaseUnavailableError
from trtfarm_db import grants
from trtfarm_db.engine import Database

_LOCK = 0x7472_7466  # "trtf": one migration at a time, whoever starts it
_LOCK_TIMEOUT = "10s"


def upgrade(database: Database) -> tuple[str | None, str]:
    """Applies what is missing; returns the revision before and after. Safe to call from many processes.

    Where ``trtfarm db roles`` has made roles, each is granted what it may do, and no more.

    Raises:
        DatabaseUnavailableError.
        ConfigurationError: this is not the owner's role.
    """
    try:
        with database.engine.begin() as connection:
            if connection.dialect.name == "postgresql":
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
                # A migration that waits for a lock blocks all who come after it: better to give up.
                connection.execute(text(f"SET LOCAL lock_timeout = '{_LOCK_TIMEOUT}'"))
            roles = grants.roles_of(connection)
            if roles is not None:
                _require_owner(connection, roles)
            before = _current(connection)
            if before != head():
                from alembic import command  # an embedded command starts sooner without it

                command.upgrade(_config(connection), "head")
            if roles is not None:
                grants.grant(connection, roles)
            return before, head()
    except OperationalError as error:
        raise DatabaseUnavailableError(f"The database cannot be reached: {error.orig}") from error


def _require_owner(connection: Connection, roles: grants.Roles) -> None:
    user = connection.scalar(text("SELECT current_user"))
    if user != roles.owner:
        raise ConfigurationError(
            f"The schema is for the role {roles.owner} to change, not for {user}.",
            hint=f"Give trtfarm db upgrade a database.url with the role {roles.owner}.",
        )


def require_current(database: Database) -> None:
    """Raises ConfigurationError if the schema is not this version's."""
    with database.transaction() as connection:
        found = _current(connection)
    if found != head():
        raise ConfigurationError(
            f"The database has schema {found or '(none)'}, this version needs {head()}.",
            hint="Run: trtfarm db upgrade",
        )


def head() -> str:
    """The newest revision: files are named by date, so it is the last one."""
    return max(_versions().glob("[0-9]*.py")).stem.partition("_")[0]


def _versions() -> Path:
    return Path(__file__).with_name("migrations") / "versions"


def _current(connection: Connection) -> str | None:
    from sqlalchemy import inspect

    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()


def _config(connection: Connection) -> Any:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_versions().parent))
    config.attributes["connection"] = connection
    return config
