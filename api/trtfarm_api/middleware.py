"""ASGI middleware: plain functions around ``send`` and ``receive``, so that streams stay streams."""

from __future__ import annotations

import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from trtfarm.errors import BodyTooLargeError
from trtfarm_api.errors import problem, status_of
from trtfarm_api.metrics import Metrics

MAX_BODY_BYTES = 1 << 20
MAX_QUERY_BYTES = 8 << 10
_STREAMED_METHOD = "PATCH"  # uploads count their bytes themselves


class RequestTimes:
    """Seconds to the start of every answer, by route."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()

        async def observe(message: Message) -> None:
            if message["type"] == "http.response.start":
                route = getattr(scope.get("route"), "path", "(none)")
                self._metrics.request_seconds.labels(scope["method"], route, message["status"]).observe(
                    time.perf_counter() - started
                )
            await send(message)

        await self._app(scope, receive, observe)


class PlainAddress:
    """No name in an address has a NUL, and a database cannot even look for one. No question is that long."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and len(scope["query_string"]) > MAX_QUERY_BYTES:
            detail = f"The address has a query of more than {MAX_QUERY_BYTES} bytes."
            await problem(414, "QUERY_TOO_LONG", detail)(scope, receive, send)
            return
        if scope["type"] == "http" and b"%00" in scope.get("raw_path", b"") + b"?" + scope["query_string"]:
            await problem(400, "INVALID_PATH", "The address contains NUL.")(scope, receive, send)
            return
        await self._app(scope, receive, send)


class BodyLimit:
    """Documents are small; only uploads are not."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] == _STREAMED_METHOD:
            await self._app(scope, receive, send)
            return
        seen = 0

        async def count() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > MAX_BODY_BYTES:
                raise BodyTooLargeError(f"The body has more than {MAX_BODY_BYTES} bytes.")
            return message

        try:
            await self._app(scope, count, send)
        except BodyTooLargeError as error:
            # FastAPI reads the body outside of its own error handling.
            await problem(status_of(error), error.code, error.message)(scope, receive, send)
