"""The API on a port or a socket."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from trtfarm_api.app import create_app
from trtfarm_api.farm import Farm
from trtfarm_api.pages import STYLE_SOURCE

_START_SECONDS = 30.0
_KEEP_ALIVE_SECONDS = 30
_POLICY = "; ".join(
    (
        "default-src 'none'",
        f"style-src {STYLE_SOURCE}",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
# With every answer, also the ones that no route has made.
_HEADERS = [
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Content-Security-Policy", _POLICY),
]


def serve(farm: Farm) -> None:
    """Blocks until SIGTERM or Ctrl-C, and lets requests under way end."""
    _server(farm, host=farm.settings.host, port=farm.settings.port, log_level="info").run()


@contextlib.contextmanager
def serving(farm: Farm, socket: Path) -> Iterator[None]:
    """Serves on a Unix socket from a thread, for as long as the block runs."""
    server = _server(farm, uds=str(socket), log_level="warning")
    server.install_signal_handlers = lambda: None
    thread = threading.Thread(target=server.run, name="api", daemon=True)
    thread.start()
    end = time.monotonic() + _START_SECONDS
    while not server.started and thread.is_alive() and time.monotonic() < end:
        time.sleep(0.005)
    try:
        yield
    finally:
        server.should_exit = True
        thread.join()


def _server(farm: Farm, **options: Any) -> Any:
    import uvicorn

    from trtfarm_api.connections import GuardedProtocol

    app = create_app(farm)
    config = uvicorn.Config(
        app,
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=10,
        http=GuardedProtocol,
        ws="none",
        proxy_headers=False,  # nothing here believes them
        access_log=False,
        log_config=None,  # the process has its own
        server_header=False,
        headers=_HEADERS,
        **options,
    )
    server = uvicorn.Server(config)
    shut_down = server.shutdown

    async def shutdown(sockets: Any = None) -> None:
        # The lifespan would be told only when all connections have ended.
        if hasattr(app.state, "followers"):  # else it never started
            app.state.followers.end()
        await shut_down(sockets)

    server.shutdown = shutdown  # type: ignore[method-assign]
    return server
