"""Where a farm is and who asks, for both clients."""

from __future__ import annotations

from typing import Any

import httpx

from trtfarm import __version__, errors

TIMEOUT = httpx.Timeout(30.0, connect=5.0)


def options(url: str, api_key: str | None) -> dict[str, Any]:
    """Arguments of ``httpx.Client`` and ``httpx.AsyncClient``. Raises ConfigurationError, AuthError."""
    _check_url(url)
    headers = {"User-Agent": f"trtfarm/{__version__}"}
    if api_key:
        if not (api_key.isascii() and api_key.isprintable()):
            raise errors.AuthError(
                "TRTFARM_API_KEY has characters that no API key has.", hint="Copy the key again."
            )
        headers["Authorization"] = f"Bearer {api_key}"
    return {"base_url": url, "headers": headers, "timeout": TIMEOUT, "trust_env": False}


def _check_url(url: str) -> None:
    try:
        parts = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise errors.ConfigurationError(f"{url!r} is no address of a farm: {error}.") from error
    if parts.scheme not in {"http", "https"} or not parts.host:
        raise errors.ConfigurationError(
            f"{url!r} is no address of a farm.", hint="Write it as http://farm.example:8420."
        )
