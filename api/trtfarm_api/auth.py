"""Who calls, and what they may do.

Whoever calls anything but ``PUBLIC`` is known before a byte of the body is read (``doors``), and what a route
needs is declared by one of its dependencies and checked by ``GuardedRoute``, before that as well.
"""

from __future__ import annotations

import hmac
import math
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Annotated, Any, Protocol

from anyio import CapacityLimiter, fail_after, to_thread
from fastapi import Depends, Request
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from starlette.responses import Response

from trtfarm.contract.digest import Digest
from trtfarm.contract.jobs import Scope
from trtfarm.errors import AuthError, DatabaseUnavailableError, ScopeMissingError
from trtfarm_db.engine import Database
from trtfarm_db.repositories import keys
from trtfarm_db.repositories.keys import KeyRepository

PUBLIC = frozenset({"/healthz", "/readyz"})
WITHOUT_DATABASE = frozenset({"/metrics"})  # keys that were in use before it went away still count
PRINCIPAL = "trtfarm.principal"  # in an ASGI scope
_CACHE_SECONDS = 5.0
_CACHE_ENTRIES = 10_000
_STALE_SECONDS = 3600.0  # of a key, where the database need not be asked
_PATIENCE_SECONDS = 3.0  # there, before it counts as away
_CHECKS = 8  # at a time: strangers who guess keys must not hold the threads of all routes

Handler = Callable[[Request], Coroutine[Any, Any, Response]]


@dataclass(frozen=True)
class Principal:
    """A key's id, or ``local``: on an embedded farm, and on one without keys."""

    name: str
    scope: Scope

    def require(self, scope: Scope) -> None:
        """Raises ScopeMissingError."""
        if not self.scope.includes(scope):
            raise ScopeMissingError(f"This needs a key with scope {scope}; yours has {self.scope}.")


LOCAL = Principal("local", Scope.ADMIN)


class Gatekeeper(Protocol):
    """Tells whose key that is."""

    @property
    def hint(self) -> str:
        """Where somebody without a key gets one."""

    async def check(self, key: str, *, without_database: bool = False) -> Principal:
        """Raises AuthError, KeyRevokedError, DatabaseUnavailableError."""


class TokenKeeper:
    """The one key of an embedded farm, which lies in its home."""

    hint = (
        "This farm runs embedded, and its key is the file `token` in the home of who runs it: "
        'export TRTFARM_API_KEY="$(cat "$TRTFARM_HOME/token")".'
    )

    def __init__(self, token: str) -> None:
        self._token = token.encode()

    async def check(self, key: str, *, without_database: bool = False) -> Principal:
        del without_database
        if not hmac.compare_digest(key.encode(), self._token):
            raise AuthError("That is not the key of this embedded farm.", hint=self.hint)
        return LOCAL


class KeyCache:
    """Keys found valid lately; a revoked one works for at most ``_CACHE_SECONDS`` more."""

    hint = "Set TRTFARM_API_KEY, or send: Authorization: Bearer <key>."

    def __init__(self, database: Database) -> None:
        self._database = database
        self._limiter = CapacityLimiter(_CHECKS)
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
        keys.parse(key)  # what is no key at all costs no thread
        try:
            with fail_after(_PATIENCE_SECONDS if without_database else math.inf):
                principal = await to_thread.run_sync(
                    self._read, key, abandon_on_cancel=without_database, limiter=self._limiter
                )
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


@dataclass(frozen=True)
class Requires:
    """A dependency: what a route needs, and who has it."""

    scope: Scope

    async def __call__(self, request: Request) -> Principal:
        return principal_of(request)


def principal_of(request: Request) -> Principal:
    """Who calls. Only ``PUBLIC`` is answered without one."""
    principal: Principal = request.scope[PRINCIPAL]
    return principal


class GuardedRoute(APIRoute):
    """A route that says which scope it needs, which is checked before anything of the request is read.

    Raises:
        TypeError: it does not say, and is not ``PUBLIC``.
    """

    def get_route_handler(self) -> Handler:
        handle = self.open(super().get_route_handler())
        if self.path in PUBLIC:
            return handle
        needed = scope_of(self)

        async def guarded(request: Request) -> Response:
            principal_of(request).require(needed)
            return await handle(request)

        return guarded

    def open(self, handle: Handler) -> Handler:
        """What comes after the scope is known to do."""
        return handle


def scope_of(route: APIRoute) -> Scope:
    """Raises TypeError if it declares none."""
    declared = _declared(route.dependant)
    if not declared:
        raise TypeError(f"{route.path} needs a scope: dependencies=[scoped(Scope.…)], Reader or Submitter.")
    return max(declared, key=list(Scope).index)


def _declared(dependant: Dependant) -> list[Scope]:
    found = [dependant.call.scope] if isinstance(dependant.call, Requires) else []
    for inner in dependant.dependencies:
        found += _declared(inner)
    return found


def scoped(scope: Scope) -> Any:
    return Depends(Requires(scope))


Reader = Annotated[Principal, Depends(Requires(Scope.READ))]
Submitter = Annotated[Principal, Depends(Requires(Scope.SUBMIT))]
