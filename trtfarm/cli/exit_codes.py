"""How commands end."""

from __future__ import annotations

from enum import IntEnum

from trtfarm import errors


class Exit(IntEnum):
    """Process exit statuses; part of the contract."""

    DONE = 0
    JOB_FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    REFUSED = 4
    UNREACHABLE = 5


_OF: tuple[tuple[type[errors.TrtFarmError], Exit], ...] = (
    (errors.AuthError, Exit.REFUSED),
    (errors.QuotaExceededError, Exit.REFUSED),
    (errors.NotFoundError, Exit.NOT_FOUND),
    (errors.UnavailableError, Exit.UNREACHABLE),
    (errors.InvalidRequestError, Exit.USAGE),
    (errors.ConfigurationError, Exit.USAGE),
    (errors.LocalFileError, Exit.USAGE),
)


def exit_code(error: errors.TrtFarmError) -> Exit:
    return next((code for kind, code in _OF if isinstance(error, kind)), Exit.JOB_FAILED)
