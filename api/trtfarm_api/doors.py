"""Who is let in, as ASGI middleware: before a route is looked for, and before a byte of the body is read."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from trtfarm import __version__
from trtfarm.contract.v1 import EMBEDDED_HOST, VERSION_HEADER
from trtfarm.errors import (
    AuthRequiredError,
    ForeignHostError,
    ForeignOriginError,
    InvalidRequestError,
    ProxyWithoutKeysError,
    TrtFarmError,
)
from trtfarm_api.auth import LOCAL, PRINCIPAL, PUBLIC, WITHOUT_DATABASE, Gatekeeper, Principal
from trtfarm_api.errors import answer_to
from trtfarm_api.settings import ServerSettings

_HOST = re.compile(r"(\[[0-9a-f:.]{2,45}\]|[a-z0-9_](?:[a-z0-9._-]{0,252}))(?::(\d{1,5}))?")
_PORTS = {"http": "80", "https": "443"}
_OWN_SITES = frozenset({"same-origin", "none"})  # none: typed or bookmarked by a person
_ONCE = frozenset(
    {b"host", b"origin", b"authorization", b"content-length", b"sec-fetch-site", b"content-type"}
)
_PROXY_HEADERS = re.compile(rb"forwarded|x-forwarded(-.*)?|x-real-ip|via|x-client-ip|x-original-.*")

_NOT_KEPT = (b"cache-control", b"no-store")
_VERSION = (VERSION_HEADER.lower().encode(), __version__.encode())


class Doors:
    """Refuses foreign hosts, pages of other origins, and whoever brings no key; remembers who it was.

    ``keeper``: None on a farm without keys, which takes nothing that came through a proxy.
    """

    def __init__(self, app: ASGIApp, settings: ServerSettings, keeper: Gatekeeper | None) -> None:
        self._app = app
        self._keeper = keeper
        self._names = frozenset(map(host_name, settings.accepted_hosts))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            principal = await self._admit(scope)
        except TrtFarmError as error:
            await answer_to(error)(scope, receive, send)
            return
        scope[PRINCIPAL] = principal

        async def dress(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = message["headers"] = list(message.get("headers", ()))
                if not any(name == b"cache-control" for name, _ in headers):
                    headers.append(_NOT_KEPT)
                if principal is not None:
                    headers.append(_VERSION)
            await send(message)

        await self._app(scope, receive, dress)

    async def _admit(self, scope: Scope) -> Principal | None:
        """None for who may be anybody: the address is public.

        Raises:
            InvalidRequestError, ForeignHostError, ForeignOriginError, ProxyWithoutKeysError.
            AuthRequiredError, AuthError, DatabaseUnavailableError.
        """
        found: dict[bytes, bytes] = {}
        for name, value in scope["headers"]:
            if name in _ONCE and name in found:
                raise InvalidRequestError(f"The header {name.decode()} is there twice.")
            found[name] = value
        host = self._host(scope, found)
        _check_origin(host, found)
        if self._keeper is None:
            _check_no_proxy(found)
            return LOCAL
        path = scope["path"]
        if path in PUBLIC:
            return None
        kind, _, key = found.get(b"authorization", b"").decode("latin-1").partition(" ")
        key = key.strip()
        if kind.lower() != "bearer" or not key:
            raise AuthRequiredError(hint=self._keeper.hint)
        return await self._keeper.check(key, without_database=path in WITHOUT_DATABASE)

    def _host(self, scope: Scope, found: dict[bytes, bytes]) -> tuple[str, str | None]:
        """(name, port) that the caller means. Who makes a name of his own point here has another one."""
        told = found.get(b"host", b"").decode("latin-1").lower()
        match = _HOST.fullmatch(told)
        if match is None:
            raise InvalidRequestError(
                "The Host header is missing." if not told else f"{told[:100]!a} is no host.",
                hint="Send HTTP/1.1, with the name of the farm in Host.",
            )
        name, port = host_name(match[1]), match[2]
        if name not in self._names and name != _own_address(scope):
            raise ForeignHostError(
                f"This farm does not answer to the name {name[:100]!r}.",
                hint="An operator can add it to server.hosts (TRTFARM_SERVER_HOSTS).",
            )
        return name, port


def host_name(written: str) -> str:
    """As names are compared: lower case, no brackets, no final dot, addresses in their shortest form."""
    name = written.lower().removeprefix("[").removesuffix("]").rstrip(".")
    try:
        return str(ipaddress.ip_address(name))
    except ValueError:
        return name


def _own_address(scope: Scope) -> str:
    """The address that the connection was made to, which no name server can make point elsewhere."""
    address, port = scope.get("server") or ("", None)
    return host_name(str(address)) if port is not None else EMBEDDED_HOST  # a Unix socket


def _check_origin(host: tuple[str, str | None], found: dict[bytes, bytes]) -> None:
    """A page in a browser may only be of this farm, whatever it asks for.

    Its scheme is the proxy's affair, which may speak HTTPS for the farm.
    """
    site = found.get(b"sec-fetch-site", b"none").decode("latin-1").strip().lower()
    origin = found.get(b"origin")
    if site in _OWN_SITES and (origin is None or _same(origin.decode("latin-1"), host)):
        return
    raise ForeignOriginError(hint="The farm serves programs, and pages of its own.")


def _same(origin: str, host: tuple[str, str | None]) -> bool:
    scheme, _, rest = origin.lower().partition("://")
    match = _HOST.fullmatch(rest)
    if match is None or scheme not in _PORTS:
        return False
    usual, (name, port) = _PORTS[scheme], host
    return host_name(match[1]) == name and (match[2] or usual) == (port or usual)


def _check_no_proxy(found: Iterable[bytes]) -> None:
    for name in found:
        if _PROXY_HEADERS.fullmatch(name):
            raise ProxyWithoutKeysError(
                f"This farm needs no keys, and the request came through a proxy ({name.decode()}).",
                hint="Set server.require_keys = true: behind a proxy, loopback is the internet.",
            )
