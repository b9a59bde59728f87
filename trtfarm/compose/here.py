"""The way to the embedded farm of a home: this process runs it, or is the guest of the one that does."""

from __future__ import annotations

import atexit
import contextlib
import json
import ssl
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import NamedTuple

import anyio
import httpx
from anyio import to_thread

from trtfarm.compose.embedded import Home, controller, embedded_farm, reachable_at, socket_folder
from trtfarm.compose.secrets import read_token
from trtfarm.contract.v1 import EMBEDDED_HOST
from trtfarm.errors import ConfigurationError, FarmUnreachableError

URL = f"http://{EMBEDDED_HOST}"
_TAKE_OVER_SECONDS = 60.0
_LOOK_AGAIN_SECONDS = 0.2


def incomplete(error: ModuleNotFoundError) -> ConfigurationError:
    """The base install is a client alone."""
    return ConfigurationError(
        f"This needs {error.name}, which is not installed.",
        hint="Set TRTFARM_URL to use a farm that runs elsewhere, or: pip install 'trtfarm[rtx]'",
    )


class Where(NamedTuple):
    """As the process that runs the farm writes it down: one of the two."""

    socket: str | None = None
    url: str | None = None


class Here:
    """Asked before every request where the farm is: when the process that ran it ends, this one does.

    ``builds``: if this process runs the farm, it starts its workers.
    """

    def __init__(self, home: Home, *, builds: bool) -> None:
        self.home = home
        self._builds = builds
        self._lock = threading.Lock()
        self._own: Where | None = None
        self._keeper: threading.Thread | None = None
        self._closing = threading.Event()

    @property
    def guest(self) -> bool:
        return self._own is None

    def where(self) -> Where:
        """Where the farm answers now.

        Raises:
            ConfigurationError: TensorRT cannot be loaded, or parts of the server are not installed.
            FarmUnreachableError: the process that runs the farm is starting or stopping.
        """
        with self._lock:
            if self._own is not None:
                return self._own
            try:
                return self._run()
            except ModuleNotFoundError as error:
                raise incomplete(error) from error

    def _run(self) -> Where:
        self.home.make()  # where others could have left an address, none is read
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(controller(self.home))
            except ConfigurationError:
                return self._address()
            opened: Future[Where] = Future()
            self._closing.clear()
            self._keeper = threading.Thread(
                target=self._keep, args=(stack.pop_all(), opened), name="farm", daemon=True
            )
            self._keeper.start()
        atexit.register(self.close)
        self._own = opened.result()
        return self._own

    def _keep(self, stack: contextlib.ExitStack, opened: Future[Where]) -> None:
        """In a thread that stays: a child process ends with the thread that has started it."""
        with stack:
            try:
                socket = stack.enter_context(_controlling(self.home, builds=self._builds))
            except BaseException as error:  # noqa: BLE001 - raised where the farm was asked for
                stack.close()
                opened.set_exception(error)
            else:
                opened.set_result(Where(socket=str(socket)))
                self._closing.wait()

    def _address(self) -> Where:
        """Of the process that runs the farm now."""
        try:
            written = json.loads(self.home.address.read_text())
            return Where(**written)
        except (OSError, ValueError, TypeError):
            raise FarmUnreachableError(f"The farm in {self.home.path} is starting or stopping.") from None

    def close(self) -> None:
        with self._lock:
            if self._keeper is not None:
                atexit.unregister(self.close)
                self._closing.set()
                self._keeper.join()
            self._own = self._keeper = None


@contextlib.contextmanager
def _controlling(home: Home, *, builds: bool) -> Iterator[Path]:
    """Gives the socket of the farm's API."""
    from trtfarm_api.serving import serving

    with contextlib.ExitStack() as stack:
        farm, crew = stack.enter_context(embedded_farm(home))
        socket = stack.enter_context(socket_folder()) / "api"
        if builds:
            stack.callback(crew.stop)
            crew.start()
        stack.enter_context(serving(farm, socket))
        stack.enter_context(reachable_at(home, socket=str(socket)))
        yield socket


class _TakingOver:
    """Between two processes that run the farm, nobody does: a guest looks again for a while."""

    def __init__(self, here: Here) -> None:
        self._here = here
        self._end = time.monotonic() + _TAKE_OVER_SECONDS

    def gives_up(self) -> bool:
        return not self._here.guest or time.monotonic() > self._end


class EmbeddedTransport(httpx.BaseTransport):
    def __init__(self, here: Here) -> None:
        self._here = here
        self._lines: dict[Where, httpx.HTTPTransport] = {}

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        taking_over = _TakingOver(self._here)
        while True:
            try:
                where = self._here.where()
                return self._line(where).handle_request(_addressed(request, where, self._here.home))
            except (httpx.ConnectError, FarmUnreachableError):
                if taking_over.gives_up():
                    raise
            time.sleep(_LOOK_AGAIN_SECONDS)

    def _line(self, where: Where) -> httpx.HTTPTransport:
        if where not in self._lines:
            self._lines[where] = httpx.HTTPTransport(uds=where.socket, verify=_no_tls(), trust_env=False)
        return self._lines[where]

    def close(self) -> None:
        for line in self._lines.values():
            line.close()
        self._here.close()


class AsyncEmbeddedTransport(httpx.AsyncBaseTransport):
    def __init__(self, here: Here) -> None:
        self._here = here
        self._lines: dict[Where, httpx.AsyncHTTPTransport] = {}

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        taking_over = _TakingOver(self._here)
        while True:
            try:
                where = await to_thread.run_sync(self._here.where)
                return await self._line(where).handle_async_request(
                    _addressed(request, where, self._here.home)
                )
            except (httpx.ConnectError, FarmUnreachableError):
                if taking_over.gives_up():
                    raise
            await anyio.sleep(_LOOK_AGAIN_SECONDS)

    def _line(self, where: Where) -> httpx.AsyncHTTPTransport:
        if where not in self._lines:
            self._lines[where] = httpx.AsyncHTTPTransport(uds=where.socket, verify=_no_tls(), trust_env=False)
        return self._lines[where]

    async def aclose(self) -> None:
        for line in self._lines.values():
            await line.aclose()
        await to_thread.run_sync(self._here.close)


def _no_tls() -> ssl.SSLContext:
    """The farm here speaks plain HTTP: authorities, which take a tenth of a second to load, are not."""
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def _addressed(request: httpx.Request, where: Where, home: Home) -> httpx.Request:
    """With the farm's key, which only its user can read."""
    if where.url is not None:
        url = httpx.URL(where.url)
        request.url = request.url.copy_with(scheme=url.scheme, host=url.host, port=url.port)
        request.headers["Host"] = url.netloc.decode()
    if token := read_token(home.token):
        request.headers["Authorization"] = f"Bearer {token}"
    return request
