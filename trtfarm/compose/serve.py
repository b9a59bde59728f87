"""``trtfarm serve``: until SIGTERM or Ctrl-C."""

from __future__ import annotations

from trtfarm.compose.embedded import Home, controller, embedded_farm
from trtfarm.compose.parts import distributed_farm
from trtfarm.compose.settings import ApiSettings
from trtfarm.errors import ConfigurationError
from trtfarm_api.serving import serve


def serve_distributed(settings: ApiSettings) -> None:
    """On PostgreSQL and Redis; see ``distributed_farm`` for what it raises."""
    with distributed_farm(settings) as farm:
        serve(farm)


def serve_embedded(settings: ApiSettings) -> None:
    """Everything in this process, for this machine alone.

    Raises:
        ConfigurationError: another process runs this farm, or others could reach it.
    """
    if settings.server.requires_keys:
        raise ConfigurationError(
            f"An embedded farm listens on loopback only, not on {settings.server.host}.",
            hint="Run trtfarm serve without --embedded for other machines.",
        )
    home = Home.default()
    with controller(home), embedded_farm(home, settings.server) as (farm, crew):
        try:
            crew.start()
            serve(farm)
        finally:
            crew.stop()
