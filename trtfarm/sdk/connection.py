"""Where a farm is and who asks, for both clients."""

from __future__ import annotations

import ipaddress
import warnings
from typing import Any

import httpx

from trtfarm import __version__, errors
from trtfarm.contract.v1 import EMBEDDED_HOST
from trtfarm.errors.discretion import discreet_url

TIMEOUT = httpx.Timeout(30.0, connect=5.0)


class PlainHttpWarning(UserWarning):
    """A key is sent to another machine without TLS."""


def options(url: str, api_key: str | None) -> dict[str, Any]:
    """Arguments of ``httpx.Client`` and ``httpx.AsyncClient``. Raises ConfigurationError, AuthError."""
    _check_url(url)
    headers = {"User-Agent": f"trtfarm/{__version__}"}
    if api_key:
        if not (api_key.isascii() and api_key.isprintable()):
            raise errors.AuthError(
                "TRTFARM_API_KEY has characters that no API key has.", hint="Copy the key again."
            )
        _warn_of_plain_http(url)
        headers["Authorization"] = f"Bearer {api_key}"
    return {"base_url": url, "headers": headers, "timeout": TIMEOUT, "trust_env": False}


def _check_url(url: str) -> None:
    told = repr(discreet_url(url))
    try:
        parts = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise errors.ConfigurationError(f"{told} is no address of a farm: {error}.") from error
    if parts.scheme not in {"http", "https"} or not parts.host:
        raise errors.ConfigurationError(
            f"{told} is no address of a farm.", hint="Write it as http://farm.example:8420."
        )
    if parts.userinfo:
        raise errors.ConfigurationError(
            f"{told} is no address of a farm: it has a user.", hint="A key goes into TRTFARM_API_KEY."
        )


def _warn_of_plain_http(url: str) -> None:
    """Once for each farm, as Python's warnings are: whoever sees the line has the key."""
    parts = httpx.URL(url)
    if parts.scheme == "http" and not _is_loopback(parts.host):
        warnings.warn(
            f"The API key goes to {parts.host} unencrypted: http, not https.", PlainHttpWarning, stacklevel=5
        )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.rstrip(".").lower() in {"localhost", EMBEDDED_HOST}
