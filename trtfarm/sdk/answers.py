"""What a farm answers, and what somebody else does."""

from __future__ import annotations

from typing import Any, TypeVar

import httpx
from pydantic import BaseModel, ValidationError

from trtfarm import __version__, errors
from trtfarm.contract.v1 import VERSION_HEADER

View = TypeVar("View", bound=BaseModel)


def parsed(kind: type[View], response: httpx.Response, document: bytes | str | None = None) -> View:
    """A document of the farm, by default the whole answer.

    Raises:
        FarmUnreachableError: it was no farm that answered.
        IncompatibleFarmError: it was one, and it says what this client cannot pass over.
    """
    try:
        return read(kind, response.content if document is None else document)
    except ValidationError as error:
        version = response.headers.get(VERSION_HEADER)
        if version is None:
            raise stranger(response) from None
        told = error.errors()[0]
        raise errors.IncompatibleFarmError(
            f"The farm's version is {version}, and this client, {__version__}, does not understand "
            f"{'.'.join(map(str, told['loc']))} of its answer: {told['msg']}.",
            hint="Install the farm's version of the client.",
        ) from None


def read(kind: type[View], document: bytes | str) -> View:
    """What the farm said. A newer farm may say more than this client knows, at any depth.

    So requests refuse what they do not know, and answers pass over it: it is the reader who decides.
    """
    return kind.model_validate_json(document, extra="ignore")


def problem(response: httpx.Response) -> errors.TrtFarmError:
    """The error in a problem document; one made up if somebody else has answered."""
    try:
        told = read(_Told, response.content)
    except ValidationError:
        return stranger(response)
    return errors.from_code(told.code, told.detail, told.hint, told.details)


class _Told(BaseModel):
    """What of a problem document is needed."""

    code: str
    detail: str
    hint: str | None = None
    details: dict[str, Any] | None = None


def stranger(response: httpx.Response) -> errors.FarmUnreachableError:
    return errors.FarmUnreachableError(
        f"{response.request.url} answered {response.status_code}, and not as a trtfarm does.",
        hint="Check TRTFARM_URL.",
    )


def unreachable(error: Exception) -> errors.FarmUnreachableError:
    """Nobody answers, or the line is cut again and again."""
    where = ""
    if isinstance(error, httpx.RequestError):
        where = f" at {error.request.url.copy_with(raw_path=b'/')}".removesuffix("/")
    return errors.FarmUnreachableError(
        f"The farm{where} does not answer: {error}",
        hint="Check TRTFARM_URL and that the farm is up; what was accepted is not lost.",
    )
