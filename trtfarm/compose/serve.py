"""``trtfarm serve``: until SIGTERM or Ctrl-C."""

from __future__ import annotations

import signal
import sys

from trtfarm.compose.embedded import Home, controller, embedded_farm, reachable_at
from trtfarm.compose.parts import distributed_farm
from trtfarm.compose.settings import ApiSettings, WorkerFileSettings
from trtfarm.errors import ConfigurationError
from trtfarm_api.farm import Farm
from trtfarm_api.serving import serve


def serve_distributed(settings: ApiSettings) -> None:
    """On PostgreSQL and Redis; see ``distributed_farm`` for what it raises."""
    _let_sigterm_unwind()
    with distributed_farm(settings) as farm:
        _serve(farm)


def serve_embedded(settings: ApiSettings) -> None:
    """Everything in this process, for this machine alone. TRTFARM_WORKER_* variables reach its workers.

    Raises:
        ConfigurationError: another process runs this farm, or others could reach it.
    """
    server = settings.server
    if not server.loopback:
        raise ConfigurationError(
            f"An embedded farm listens on loopback only, not on {server.host}.",
            hint="Run trtfarm serve without --embedded for other machines.",
        )
    _let_sigterm_unwind()
    home = Home.default()
    host = f"[{server.host}]" if ":" in server.host else server.host
    worker = WorkerFileSettings.load().worker
    with controller(home), embedded_farm(home, server, worker, settings.maintenance) as (farm, crew):
        try:
            crew.start()
            with reachable_at(home, url=f"http://{host}:{server.port}"):
                _serve(farm)
        finally:
            crew.stop()


def _serve(farm: Farm) -> None:
    try:
        serve(farm)
    except SystemExit as error:
        if error.code:
            where = f"{farm.settings.host}:{farm.settings.port}"
            raise ConfigurationError(f"Cannot listen on {where}; the log tells why.") from error
        raise


def _let_sigterm_unwind() -> None:
    """When requests have ended, uvicorn raises the signal again; by default nothing would be closed then."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
