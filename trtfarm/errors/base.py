"""What every error has: a message, a hint, details, and a code by which it is told."""

from __future__ import annotations

import inspect
from typing import Any, ClassVar

from trtfarm.errors.discretion import discreet


class TrtFarmError(Exception):
    """The farm could not do what was asked."""

    # ``message`` shows no password of a URL, whatever library has written it.
    code: ClassVar[str] = "INTERNAL"

    def __init__(self, message: str | None = None, *, hint: str | None = None, **details: Any) -> None:
        self.message = discreet(message or inspect.cleandoc(type(self).__doc__ or "").partition("\n")[0])
        self.hint = hint
        self.details = details
        super().__init__(self.message)

    def __str__(self) -> str:
        return f"{self.message} {self.hint}" if self.hint else self.message


class InvalidRequestError(TrtFarmError):
    """The request is not valid."""

    code = "VALIDATION_ERROR"


def from_code(
    code: str,
    message: str,
    hint: str | None = None,
    details: dict[str, Any] | None = None,
    *,
    otherwise: type[TrtFarmError] = TrtFarmError,
) -> TrtFarmError:
    """The error that an answer of the API or a failed job tells of.

    A code without a class of its own, as one of TensorRT's reasons or a newer farm's, makes it one of
    ``otherwise``.
    """
    kind = _by_code(TrtFarmError).get(code)
    if kind is None:
        kind = type(otherwise.__name__, (otherwise,), {"code": code})
    error = kind(message, hint=hint)
    error.details = dict(details or {})  # whoever answers chooses the names
    return error


def _by_code(root: type[TrtFarmError]) -> dict[str, type[TrtFarmError]]:
    found = {root.code: root}
    for kind in root.__subclasses__():
        if kind.__doc__:  # else it was made above, for one error
            found = _by_code(kind) | found
    return found
