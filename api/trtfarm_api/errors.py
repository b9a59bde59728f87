"""Errors → RFC 9457 problem documents. The only place that knows HTTP statuses."""

from __future__ import annotations

import json
import logging
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from trtfarm import errors
from trtfarm.contract.v1 import Problem
from trtfarm.store import is_full
from trtfarm_api.blobs import BlobGoneError

_log = logging.getLogger(__name__)

# The first class that matches, from special to general.
_STATUS: tuple[tuple[type[errors.TrtFarmError], int], ...] = (
    (errors.AuthRequiredError, 401),
    (errors.ScopeMissingError, 403),
    (errors.QuotaExceededError, 403),
    (errors.ForeignHostError, 421),
    (errors.ForeignOriginError, 403),
    (errors.ProxyWithoutKeysError, 403),
    (errors.AuthError, 401),
    (errors.SizeExceededError, 413),
    (errors.UploadTooLargeError, 413),
    (errors.BodyTooLargeError, 413),
    (errors.BodyTimeoutError, 408),
    (errors.InvalidJsonError, 400),
    (errors.InvalidCursorError, 400),
    (errors.RangeUnsatisfiableError, 416),
    (errors.OffsetMismatchError, 409),
    (errors.UploadLockedError, 423),
    (errors.InvalidRequestError, 422),
    (BlobGoneError, 410),
    (errors.UploadExpiredError, 410),
    (errors.NotFoundError, 404),
    (errors.ConflictError, 409),
    (errors.StorageFullError, 507),
    (errors.BlobCorruptError, 410),
    (errors.TooManyUploadsError, 429),
    (errors.UnavailableError, 503),
    (errors.ConfigurationError, 503),
)
_RETRY_AFTER_SECONDS = 2
_CLIENT_CLOSED = 499  # nginx's number for it, in logs and metrics only
_LISTED = 20  # of the errors of a document
_DETAILS_BYTES = 32 << 10  # all that says more than the message is left out above that
_CODES = {404: "NOT_FOUND", 405: "METHOD_NOT_ALLOWED", 415: "UNSUPPORTED_MEDIA_TYPE"}

DOCUMENTED: dict[str, Any] = {
    "description": "A problem, with a stable `code`",
    "content": {"application/problem+json": {"schema": Problem.model_json_schema()}},
}


def status_of(error: errors.TrtFarmError) -> int:
    return next((status for kind, status in _STATUS if isinstance(error, kind)), 500)


def problem(status: int, code: str, detail: str, **more: Any) -> JSONResponse:
    document = Problem(
        title=HTTPStatus(status).phrase, status=status, detail=short(detail), code=code, **more
    )
    if len(json.dumps(document.details, default=str)) > _DETAILS_BYTES:
        document = document.model_copy(update={"details": None})
    headers = {"Cache-Control": "no-store"}
    if status in {503, 423, 429}:
        headers["Retry-After"] = str(_RETRY_AFTER_SECONDS)
    if status == 401:
        headers["WWW-Authenticate"] = 'Bearer realm="trtfarm"'
    return JSONResponse(
        document.model_dump(mode="json", exclude_none=True),
        status,
        headers,
        media_type="application/problem+json",
    )


def short(text: str, most: int = 2000) -> str:
    """Errors repeat what was sent; not all of it."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def answer_to(error: errors.TrtFarmError) -> JSONResponse:
    answer = problem(status_of(error), error.code, error.message, hint=error.hint, details=error.details)
    if isinstance(error, errors.RangeUnsatisfiableError):
        answer.headers["Content-Range"] = f"bytes */{error.details['size_bytes']}"
    return answer


def install(app: FastAPI) -> None:
    app.add_exception_handler(errors.TrtFarmError, _farm_error)
    app.add_exception_handler(RequestValidationError, _validation)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(ClientDisconnect, _nobody)
    app.add_exception_handler(OSError, _file_error)
    app.add_exception_handler(Exception, _unexpected)


def _farm_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, errors.TrtFarmError)  # noqa: S101 - by registration
    if status_of(error) == 500:
        _log.error("%s %s", request.method, request.url.path, exc_info=error)
    return answer_to(error)


def _validation(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - by registration
    issues = error.errors()
    for issue in issues:
        cause = (issue.get("ctx") or {}).get("error")
        if isinstance(cause, errors.TrtFarmError):
            return _farm_error(request, cause)
    listed = [
        {"field": short(".".join(map(str, issue["loc"])), 200), "message": short(issue["msg"], 300)}
        for issue in issues[:_LISTED]
    ]
    where = listed[0]["field"].partition(".")[2] or listed[0]["field"]
    code = "UNKNOWN_FIELD" if issues[0]["type"] == "extra_forbidden" else "VALIDATION_ERROR"
    message = (
        f"There is no field {where!r}." if code == "UNKNOWN_FIELD" else f"{where}: {listed[0]['message']}."
    )
    return problem(422, code, message, details={"errors": listed})


def _http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)  # noqa: S101 - by registration
    code = _CODES.get(error.status_code, HTTPStatus(error.status_code).name)
    answer = problem(error.status_code, code, f"{request.method} {request.url.path}: {error.detail}")
    answer.headers.update(error.headers or {})  # Allow, with 405
    return answer


def _nobody(request: Request, error: Exception) -> Response:
    """The client went away while it sent something: nothing is wrong here, and nobody hears the answer."""
    del request, error
    return Response(status_code=_CLIENT_CLOSED)


def _file_error(request: Request, error: Exception) -> JSONResponse:
    """A full disk shows wherever something is written."""
    if isinstance(error, OSError) and is_full(error):
        return _farm_error(request, errors.StorageFullError("A disk of the farm is full."))
    raise error


def _unexpected(request: Request, error: Exception) -> JSONResponse:
    del error  # the server's log has it, with its traceback
    detail = f"{request.method} {request.url.path} failed; the server's log tells why."
    answer = problem(500, "INTERNAL", detail)
    answer.headers["Connection"] = "close"  # as uvicorn does after an exception; so nobody sends on it
    return answer
