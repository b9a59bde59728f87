"""One of several processes does what needs doing once."""

from __future__ import annotations

import contextlib
from typing import Any

from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from trtfarm_db.engine import Database

_LOCK = 0x7472_6D61  # "trma"


class Leadership:
    """PostgreSQL's advisory lock, on a connection kept for it: who dies or is cut off has lost it.

    A leader that does not know yet that it is none is possible; what it does must be harmless twice. An
    SQLite farm has one controller anyway.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._connection: Connection | None = None
        self._driver: Any = None

    def held(self) -> bool:
        """Whether this process leads: still, or from now on."""
        if not self._database.shared:
            return True
        try:
            if self._connection is not None:
                self._connection.execute(text("SELECT 1"))
                return True
            return self._taken()
        except (DBAPIError, PoolTimeoutError):
            self.give_up()
            return False

    def _taken(self) -> bool:
        connection = self._database.engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        taken = bool(
            connection.execute(text("SELECT pg_try_advisory_lock(:key)"), {"key": _LOCK}).scalar_one()
        )
        if taken:
            self._connection, self._driver = connection, connection.connection.driver_connection
            connection.detach()
        else:
            connection.close()
        return taken

    def give_up(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(DBAPIError):
                if not connection.invalidated:  # the next one need not wait for PostgreSQL to notice
                    connection.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": _LOCK})
            with contextlib.suppress(DBAPIError):
                connection.close()
            self._driver.close()  # SQLAlchemy forgets to, of one that is detached and broken
