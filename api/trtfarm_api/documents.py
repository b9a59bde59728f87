"""JSON documents in requests, read more strictly than Python reads them, and without holding up others."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from anyio import CapacityLimiter, to_thread
from fastapi import HTTPException
from fastapi.exceptions import RequestValidationError
from pydantic import TypeAdapter, ValidationError
from starlette.requests import Request
from starlette.responses import Response

from trtfarm.errors import BodyTimeoutError, InvalidJsonError, InvalidRequestError
from trtfarm_api.auth import GuardedRoute, Handler

BODY_SECONDS = 60.0  # for all of a document
_AT_ONCE_BYTES = 4 << 10  # a larger one is looked at in a thread
_MOST_VALUES = 50_000  # a list of all files that fit in a body has fewer
_MOST_ERRORS = 1000  # more of them are not listed: that alone would take seconds
_READERS = CapacityLimiter(2)


class DocumentRoute(GuardedRoute):
    """Refuses a body that is not JSON in UTF-8, says one thing twice, or holds text that no database takes.

    Raises:
        ScopeMissingError: before anything of it is read.
        InvalidJsonError, InvalidRequestError, BodyTooLargeError, BodyTimeoutError.
        HTTPException: 415, the body is said to be something else.
    """

    def open(self, handle: Handler) -> Handler:
        """FastAPI's handler, which gets the document read and checked."""
        if self.body_field is None:
            return handle
        reader = _Reader(TypeAdapter[Any](self.body_field.field_info.annotation or Any))

        async def strictly(request: Request) -> Response:
            document = _Document(request.scope, request.receive)
            await document.read(reader)
            return await handle(document)

        return strictly


class _Reader:
    """From bytes to what a route takes."""

    def __init__(self, kind: TypeAdapter[Any]) -> None:
        self._kind = kind

    async def read(self, body: bytes) -> Any:
        if len(body) <= _AT_ONCE_BYTES:
            return self._read(body)
        return await to_thread.run_sync(self._read, body, limiter=_READERS)

    def _read(self, body: bytes) -> Any:
        if body.count(b",") > _MOST_VALUES:
            raise InvalidRequestError(f"The document has more than {_MOST_VALUES} values.")
        document = parse(body)
        try:
            return self._kind.validate_python(document)
        except ValidationError as error:
            if error.error_count() > _MOST_ERRORS:
                raise InvalidRequestError(f"The document has {error.error_count()} errors.") from None
            listed = error.errors(include_url=False, include_input=False)
            raise RequestValidationError(
                [{**each, "loc": ("body", *each["loc"])} for each in listed]
            ) from None


class _Document(Request):
    async def read(self, reader: _Reader) -> None:
        """Comes first: FastAPI turns whatever is raised while it reads a body into one error of its own.

        It then finds a document that is what the route takes, and has nothing more to check.
        """
        try:
            async with asyncio.timeout(BODY_SECONDS):
                body = await self.body()
        except TimeoutError:
            raise BodyTimeoutError(f"The body did not arrive within {BODY_SECONDS:g} s.") from None
        if not body:
            return  # a missing document is FastAPI's affair
        if self.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            raise HTTPException(415, "Send JSON, with Content-Type: application/json.")
        self._json = await reader.read(body)


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
