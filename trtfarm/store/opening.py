"""Settings to an obstore store."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from trtfarm.errors import ConfigurationError
from trtfarm.store.settings import StoreSettings

if TYPE_CHECKING:
    from obstore.store import ObjectStore

# obstore keeps options of the HTTP client apart, and panics if one is among the store's own.
_CLIENT_OPTIONS = frozenset(
    {
        "allow_http",
        "allow_invalid_certificates",
        "connect_timeout",
        "http1_only",
        "http2_only",
        "pool_idle_timeout",
        "pool_max_idle_per_host",
        "proxy_ca_certificate",
        "proxy_excludes",
        "proxy_url",
        "read_timeout",
        "root_certificate",
        "timeout",
        "user_agent",
    }
)
# obstore gives up a request, body included, after 30 s: too short for a part on a slow line.
_CLIENT_DEFAULTS = {"connect_timeout": "10s", "timeout": "5m"}
# obstore's own 10 retries keep a caller waiting for 3 minutes.
_RETRY = {"max_retries": 5, "retry_timeout": timedelta(seconds=60)}


def open_store(settings: StoreSettings) -> ObjectStore:
    """Makes the folder of a ``file://`` store; makes no request to others.

    Raises:
        ConfigurationError: an option that obstore does not know, or a folder that cannot be made.

    """
    from obstore.exceptions import BaseError
    from obstore.store import from_url

    client = _CLIENT_DEFAULTS | {k: v for k, v in settings.options.items() if k in _CLIENT_OPTIONS}
    config = {k: v for k, v in settings.options.items() if k not in _CLIENT_OPTIONS}
    arguments: dict[str, Any] = (
        {"mkdir": True}
        if settings.on_disk
        else {"config": config, "client_options": client, "retry_config": _RETRY}
    )
    try:
        return from_url(settings.url, **arguments)
    except (BaseError, OSError, ValueError, TypeError) as error:
        reason = str(error).partition("\n")[0]
        for secret in settings.secrets() - {""}:
            reason = reason.replace(secret, "***")
        raise ConfigurationError(
            f"The artifact store at {settings.url} cannot be opened: {reason}"
        ) from error
