"""Artifacts over HTTP: ranges, conditions, digests (RFC 9110, 9530)."""

from __future__ import annotations

import base64
import re
from collections.abc import AsyncIterator
from typing import Any

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from trtfarm.contract.digest import Digest
from trtfarm.errors import RangeUnsatisfiableError
from trtfarm_api.farm import Farm

_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})", re.IGNORECASE)
_FOREVER = "private, max-age=31536000, immutable"


def artifact_response(
    farm: Farm, request: Request, digest: Digest, *, media_type: str, filename: str | None = None
) -> Response:
    """The bytes of an artifact, or those of the one range asked for; several ranges are not served.

    Raises:
        BlobMissingError, BlobCorruptError: before any byte.
        RangeUnsatisfiableError: the range starts beyond the end.
    """
    size = farm.blobs.require(digest).size_bytes
    etag = f'"{digest.hex}"'
    headers = {
        "ETag": etag,
        "Accept-Ranges": "bytes",
        "Cache-Control": _FOREVER,
        "Repr-Digest": f"sha-256=:{base64.b64encode(bytes.fromhex(digest.hex)).decode()}:",
    }
    if filename:
        headers["Content-Disposition"] = f'attachment; filename="{filename}"'
    if {etag, "*"} & _tags(request.headers.get("if-none-match", "")):
        return Response(status_code=304, headers=headers)
    start, end = _range(request, size, etag)
    partial = (start, end) != (0, size)
    if partial:
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
    headers["Content-Length"] = str(end - start)
    status = 206 if partial else 200
    if request.method == "HEAD":
        return Response(status_code=status, headers=headers, media_type=media_type)
    body = _body(farm, digest, start, end)
    return StreamingResponse(body, status, headers, media_type)


async def _body(farm: Farm, digest: Digest, start: int, end: int) -> AsyncIterator[Any]:
    async for view in farm.store.stream(digest, start, end):
        yield view


def _range(request: Request, size: int, etag: str) -> tuple[int, int]:
    """(start, end) of the bytes to send, end exclusive."""
    if request.method != "GET":
        return 0, size
    match = _RANGE.fullmatch(request.headers.get("range", "").strip())
    if match is None or not any(match.groups()) or request.headers.get("if-range", etag) != etag:
        return 0, size
    first, last = match.groups()
    if first:
        start, end = int(first), min(size, int(last) + 1 if last else size)
    else:
        start, end = max(0, size - int(last)), size
    if start >= size or start >= end:
        raise RangeUnsatisfiableError(f"{match.group()} lies outside of the {size} bytes.", size_bytes=size)
    return start, end


def _tags(header: str) -> set[str]:
    return {tag.strip().removeprefix("W/") for tag in header.split(",")}
