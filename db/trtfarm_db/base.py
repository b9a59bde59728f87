"""The declarative base, column types and the database's own clock."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from itertools import islice
from typing import Any, TypeVar

from sqlalchemy import Connection, DateTime, MetaData, text, types
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.engine import Dialect
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import DeclarativeBase
from sqlalchemy.sql import expression
from sqlalchemy.sql.compiler import SQLCompiler

T = TypeVar("T")
_AT_ONCE = 500
NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}


class Base(DeclarativeBase):
    metadata = MetaData(naming_convention=NAMING)


class UtcDateTime(types.TypeDecorator[datetime]):
    """An aware UTC datetime on every back end; SQLite keeps no zone by itself."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None or dialect.name != "sqlite":
            return value
        return value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        del dialect
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Json(types.TypeDecorator[Any]):
    """A JSON document. NUL becomes U+FFFD: PostgreSQL cannot keep it, and a message may have it."""

    impl = types.JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> Any:
        del dialect
        return _without_nul(value)


def _without_nul(value: Any) -> Any:
    if isinstance(value, str):
        return value.replace("\0", "\N{REPLACEMENT CHARACTER}")
    if isinstance(value, dict):
        return {_without_nul(name): _without_nul(item) for name, item in value.items()}
    return [_without_nul(item) for item in value] if isinstance(value, list | tuple) else value


class db_now(expression.FunctionElement[datetime]):  # noqa: N801 - reads as the SQL function it is
    """The database's clock plus ``offset`` seconds: leases must not depend on a worker's clock."""

    type = UtcDateTime()
    inherit_cache = True
    name = "db_now"

    def __init__(self, offset: float = 0.0) -> None:
        super().__init__(expression.literal(float(offset)))


@compiles(db_now, "postgresql")
def _now_postgresql(element: db_now, compiler: SQLCompiler, **kw: Any) -> str:
    seconds = compiler.process(element.clauses, **kw)
    return f"(clock_timestamp() + make_interval(secs => {seconds}))"


@compiles(db_now, "sqlite")
def _now_sqlite(element: db_now, compiler: SQLCompiler, **kw: Any) -> str:
    # The text form that SQLAlchemy writes itself (six decimals), so that comparisons hold.
    seconds = compiler.process(element.clauses, **kw)
    return f"strftime('%Y-%m-%d %H:%M:%f000', 'now', {seconds} || ' seconds')"


def dialect_insert(dialect: str, table: Any) -> Any:
    """An INSERT that knows ON CONFLICT, which PostgreSQL and SQLite spell alike and SQLAlchemy does not."""
    return (sqlite if dialect == "sqlite" else postgresql).insert(table)


def in_batches(items: Iterable[T]) -> Iterator[list[T]]:
    """As many values as a statement may well have; databases have limits."""
    rest = iter(items)
    while some := list(islice(rest, _AT_ONCE)):
        yield some


def let_rest(connection: Connection) -> None:
    """For a transaction that holds its locks while bytes go into the store."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))
