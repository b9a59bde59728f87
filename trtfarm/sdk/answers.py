"""What a farm answers, and what somebody else does."""

from __future__ import annotations

from typing import TypeVar

import httpx
from pydantic import BaseModel, ValidationError

from trtfarm import errors

View = TypeVar("View", bound=BaseModel)


def parsed(kind: type[View], response: httpx.Response) -> View:
    """Raises FarmUnreachableError if it was no farm that answered."""
    try:
        return kind.model_validate_json(response.content)
    except ValidationError:
        raise stranger(response) from None


def problem(response: httpx.Response) -> errors.TrtFarmError:
    """The error in a problem document; one made up if somebody else has answered."""
    try:
        document = response.json()
        return errors.from_code(
            document["code"], document["detail"], document.get("hint"), document.get("details")
        )
    except (ValueError, KeyError, TypeError):
        return stranger(response)


def stranger(response: httpx.Response) -> errors.FarmUnreachableError:
    return errors.FarmUnreachableError(
        f"{response.request.url} answered {response.status_code}, and not as a trtfarm does.",
        hint="Check TRTFARM_URL.",
    )
