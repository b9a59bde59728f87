"""Who calls, and what they may do."""

from __future__ import annotations

import math
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, Any

from anyio import fail_after, to_thread
from fastapi import Depends, Request

from trtfarm.contract.digest import Digest
from trtfarm.contract.jobs import Scope
from trtfarm.errors import AuthRequiredError, DatabaseUnavailableError, ScopeMissingError
from trtfarm_api.farm import FarmDep
from trtfarm_db.engine import Database
from trtfarm_db.repositories.keys import KeyRepository

_CACHE_SECONDS = 5.0
_CACHE_ENTRIES = 10_000
_STALE_SECONDS = 3600.0  # of a key, where the database need not be asked
_PATIENCE_SECONDS = 3.0  # there, before it counts as away


@dataclass(frozen=True)
class Principal:
    """A key's id, or ``local`` on a farm without keys."""

    name: str
    scope: Scope

    def require(self, scope: Scope) -> None:
        """Raises ScopeMissingError."""
        if not self.scope.includes(scope):
            raise ScopeMissingError(f"This needs a key with scope {scope}; yours has {self.scope}.")


LOCAL = Principal("local", Scope.ADMIN)


class KeyCache:
    """Keys found valid lately; a revoked one works for at most ``_CACHE_SECONDS`` more."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._entries: dict[Digest, tuple[float, Principal]] = {}

    async def check(self, key: str, *, without_database: bool = False) -> Principal:
        """``without_database``: while that is away, a key found valid within the last hour still is.

        Raises:
            AuthError, KeyRevokedError, DatabaseUnavailableError.
        """
        name, now = Digest.of_bytes(key.encode()), time.monotonic()
        until, principal = self._entries.get(name, (0.0, LOCAL))
        if now < until:
            return principal
        try:
            with fail_after(_PATIENCE_SECONDS if without_database else math.inf):
                principal = await to_thread.run_sync(self._read, key, abandon_on_cancel=without_database)
        except (DatabaseUnavailableError, TimeoutError) as error:
            if without_database and now < until + _STALE_SECONDS:
                return principal
            raise DatabaseUnavailableError from error
        if len(self._entries) >= _CACHE_ENTRIES:
            self._entries.clear()
        self._entries[name] = (now + _CACHE_SECONDS, principal)
        return principal

    def _read(self, key: str) -> Principal:
        with self._database.transaction() as connection:
            return Principal(*KeyRepository(connection).check(key))


def requires(
    scope: Scope, *, without_database: bool = False
) -> Callable[[Request, FarmDep], Awaitable[Principal]]:
    """A dependency that lets through who has ``scope``.

    Raises:
        AuthRequiredError, AuthError, ScopeMissingError.
    """

    async def dependency(request: Request, farm: FarmDep) -> Principal:
        if not farm.require_keys:
            return LOCAL
        kind, _, key = request.headers.get("authorization", "").partition(" ")
        if kind.lower() != "bearer" or not key:
            raise AuthRequiredError(hint="Set TRTFARM_API_KEY, or send: Authorization: Bearer <key>.")
        cache: KeyCache = request.app.state.keys
        principal = await cache.check(key.strip(), without_database=without_database)
        principal.require(scope)
        return principal

    return dependency


def scoped(scope: Scope) -> Any:
    return Depends(requires(scope))


Reader = Annotated[Principal, Depends(requires(Scope.READ))]
Submitter = Annotated[Principal, Depends(requires(Scope.SUBMIT))]
