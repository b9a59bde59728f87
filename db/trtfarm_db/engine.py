"""Engines and transactions, for PostgreSQL and SQLite alike."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Iterator
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, InvalidatePoolError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from trtfarm.errors import ConfigurationError, DatabaseUnavailableError
from trtfarm_db.settings import DatabaseSettings

_TRUSTED_SECONDS = 1.0  # a connection used so lately is not asked whether it is still there
# Older SQLite can corrupt a WAL database when the log is reset (fixed in 3.51.3).
_WAL_SAFE = (3, 51, 3)
# A standby in the middle of a failover is read-only; a transaction that rested too long was ended.
_NOT_NOW = frozenset({"25006", "25P03"})


class CommitUnknownError(DatabaseUnavailableError):
    """The database went away while it committed: the change may have been made, or not."""


class Database:
    """An engine and its transactions. Statement errors that mean "not reachable" are translated here only."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    @classmethod
    def open(cls, settings: DatabaseSettings, process_name: str) -> Database:
        """Raises ConfigurationError for a URL of another database; connects only when first used."""
        try:
            url = make_url(settings.url.get_secret_value())
            if "@" in (url.host or ""):
                raise ArgumentError  # the rest of a password, which would be looked up, and told
            if url.get_backend_name() == "sqlite":
                engine = create_engine(url, connect_args={"timeout": 30.0})
                _configure_sqlite(engine)
                return cls(engine)
        except (ArgumentError, ValueError):  # they quote parts of it, which may be the password's
            raise ConfigurationError(
                "database.url is no address of a database.",
                hint="Use postgresql+psycopg://user:password@host:port/name or sqlite:///path; "
                "in a password, write %40 for @, %2F for /, %3A for : and %23 for #.",
            ) from None
        if url.get_backend_name() != "postgresql":
            raise ConfigurationError(
                f"The database {url.get_backend_name()} is not supported.",
                hint="Use postgresql+psycopg:// or sqlite:///.",
            )
        engine = create_engine(
            url.set(drivername="postgresql+psycopg"),
            pool_size=settings.pool_size,
            max_overflow=settings.pool_size,
            pool_timeout=settings.connect_timeout_seconds,
        )
        _connect_bounded(engine, settings, process_name)
        _ping_idle_connections(engine)
        return cls(engine)

    @contextlib.contextmanager
    def transaction(self) -> Iterator[Connection]:
        """Commits when the block ends, rolls back when it raises.

        Raises:
            DatabaseUnavailableError: the database went away, or is too busy to answer.
            CommitUnknownError: it went away during COMMIT; look what has become of the transaction.
        """
        committing = False
        try:
            with self.engine.begin() as connection:
                yield connection
                committing = True
        except (DBAPIError, PoolTimeoutError) as error:
            if not _means_unavailable(error):
                raise
            raise (CommitUnknownError if committing else DatabaseUnavailableError) from error

    @property
    def shared(self) -> bool:
        """Whether other processes work on it, too. An SQLite file has one controller."""
        return self.engine.dialect.name != "sqlite"

    def close(self) -> None:
        self.engine.dispose()


def _means_unavailable(error: Exception) -> bool:
    if isinstance(error, OperationalError | PoolTimeoutError):
        return True
    if not isinstance(error, DBAPIError):
        return False
    return error.connection_invalidated or getattr(error.orig, "sqlstate", None) in _NOT_NOW


def _connect_bounded(engine: Engine, settings: DatabaseSettings, process_name: str) -> None:
    import psycopg

    from trtfarm_db.postgres import BoundedConnection, bound_seconds, connect_arguments

    ours = connect_arguments(settings, process_name)

    @event.listens_for(engine, "do_connect")
    def connect(dialect: Any, record: Any, args: Any, given: dict[str, Any]) -> Any:
        del dialect, record
        options = f"{ours['options']} {given.pop('options', '')}"
        try:
            return BoundedConnection.bounded(
                bound_seconds(settings), *args, **(ours | given | {"options": options})
            )
        except psycopg.ProgrammingError as error:  # of libpq, before it looks for a server
            raise ConfigurationError(f"database.url: {error}.") from None


def _ping_idle_connections(engine: Engine) -> None:
    """SQLAlchemy's own pre-ping asks at every checkout, and so takes a quarter of a short transaction."""

    # New ones are not asked either: the pool, which tries twice, would end in an error that says nothing.
    @event.listens_for(engine, "connect")
    @event.listens_for(engine, "checkin")
    def known(connection: Any, record: Any) -> None:
        del connection
        record.info["known_at"] = time.monotonic()

    @event.listens_for(engine, "checkout")
    def taken(connection: Any, record: Any, proxy: Any) -> None:
        del proxy
        if time.monotonic() - record.info.get("known_at", 0.0) < _TRUSTED_SECONDS:
            return
        try:
            engine.dialect.do_ping(connection)
        except engine.dialect.loaded_dbapi.Error as error:
            raise InvalidatePoolError from error  # the pool then connects anew


def _configure_sqlite(engine: Engine) -> None:
    journal = "WAL" if sqlite3.sqlite_version_info >= _WAL_SAFE else "DELETE"

    @event.listens_for(engine, "connect")
    def connect(connection: Any, record: Any) -> None:
        del record
        connection.isolation_level = None  # the driver must not begin transactions of its own
        for pragma in (f"journal_mode={journal}", "synchronous=FULL", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        # Every transaction may write; upgrading a read lock later would fail instead of waiting.
        connection.exec_driver_sql("BEGIN IMMEDIATE")
