"""JSON documents in requests, read more strictly than Python reads them."""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import HTTPException
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response

from trtfarm.errors import InvalidJsonError, InvalidRequestError


class DocumentRoute(APIRoute):
    """Refuses a body that is not JSON in UTF-8, says one thing twice, or holds text that no database takes.

    Raises:
        InvalidJsonError, InvalidRequestError, BodyTooLargeError.
        HTTPException: 415, the body is said to be something else.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()
        if self.body_field is None:
            return handle

        async def strictly(request: Request) -> Response:
            document = _Document(request.scope, request.receive)
            await document.read()
            return await handle(document)

        return strictly


class _Document(Request):
    async def read(self) -> None:
        """Comes first: FastAPI turns whatever is raised while it reads a body into one error of its own."""
        body = await self.body()
        if not body:
            return  # a missing document is FastAPI's affair
        if self.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            raise HTTPException(415, "Send JSON, with Content-Type: application/json.")
        self._json = parse(body)


def parse(body: bytes) -> Any:
    """Raises InvalidJsonError; InvalidRequestError for text with NUL or half a surrogate pair."""
    try:
        document = json.loads(body.decode(), parse_constant=_no_constant, object_pairs_hook=_object)
    except (ValueError, RecursionError) as error:
        raise InvalidJsonError(f"The body is not valid JSON: {error}.") from None
    if b"\\u" in body:
        _check_text(document)
    return document


def _no_constant(name: str) -> None:
    raise ValueError(f"there is no {name}")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("an object has a name twice")
    return found


def _check_text(document: Any) -> None:
    waiting = [document]
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict):
            waiting += [*item, *item.values()]
        elif isinstance(item, list):
            waiting += item
        elif isinstance(item, str) and any(char == "\0" or "\ud800" <= char <= "\udfff" for char in item):
            raise InvalidRequestError(f"{item[:80]!a} is not text: it has NUL or half a surrogate pair.")
