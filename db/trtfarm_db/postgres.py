"""PostgreSQL's side of an engine: no call waits for ever on a server that has gone silent."""

from __future__ import annotations

import time
from typing import Any, Self

import psycopg
from psycopg.abc import PQGen

from trtfarm_db.settings import DatabaseSettings

_REST = 4  # times a statement's limit: so long a transaction may do nothing
_MARGIN_SECONDS = 2.0  # PostgreSQL's own limit, if the server lives, comes first and says more


class BoundedConnection(psycopg.Connection[Any]):
    """Closes itself when the server does not answer within ``bound_seconds``.

    ``statement_timeout`` is the server's affair and keepalives are its kernel's: a server that is stopped, or
    a middle box that swallows packets, may take bytes for ever and never answer.
    """

    bound_seconds: float | None = None

    def wait(self, gen: PQGen[Any], interval: float = 0.1, timeout: float | None = None) -> Any:
        if timeout is not None or self.bound_seconds is None:
            return super().wait(gen, interval, timeout)
        started = time.monotonic()
        try:
            return super().wait(gen, interval, self.bound_seconds)
        except psycopg.OperationalError as error:
            if time.monotonic() - started < self.bound_seconds:
                raise
            self.pgconn.finish()  # whatever comes later would be taken for the next answer
            message = f"the server did not answer within {self.bound_seconds:g} s"
            raise psycopg.OperationalError(message) from error

    @classmethod
    def bounded(cls, seconds: float, *args: Any, **kwargs: Any) -> Self:
        connection = cls.connect(*args, **kwargs)
        connection.bound_seconds = seconds
        return connection


def bound_seconds(settings: DatabaseSettings) -> float:
    """How long one answer may take before the connection is given up."""
    return settings.statement_timeout_seconds + _MARGIN_SECONDS


def connect_arguments(settings: DatabaseSettings, process_name: str) -> dict[str, Any]:
    """Of libpq. A host that vanished is noticed by the kernel within ``silence_seconds``."""
    silence_seconds = max(1, round(settings.silence_seconds))
    statement_ms = int(settings.statement_timeout_seconds * 1000)
    return {
        "connect_timeout": settings.connect_timeout_seconds,
        "application_name": process_name,
        "tcp_user_timeout": silence_seconds * 1000,
        "keepalives_idle": max(1, silence_seconds // 2),
        "keepalives_interval": max(1, silence_seconds // 4),
        "keepalives_count": 2,
        # Short transactions of many: none may take several processors for itself, nor keep its locks while
        # its process is frozen, or the job of a worker that is stopped in a renewal would never be reaped.
        "options": f"-c statement_timeout={statement_ms} -c timezone=UTC"
        f" -c idle_in_transaction_session_timeout={_REST * statement_ms}"
        " -c max_parallel_workers_per_gather=0",
    }
