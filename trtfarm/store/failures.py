"""What obstore raises, in the farm's words."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager

from trtfarm.contract.digest import Digest
from trtfarm.errors import BlobMissingError, ConfigurationError, StorageFullError, UnavailableError

_FULL_ERRNOS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})  # the last: a limit on files
# obstore has no class and no errno for a full store, only the text of the system or of the server.
_FULL = re.compile(r"\(os error (27|28|122)\)|507 Insufficient Storage|StorageFull|QuotaExceeded")
_NO_PLACE = "404 Not Found"  # a listing, unlike the rest, does not answer it with FileNotFoundError


def is_full(error: OSError) -> bool:
    return error.errno in _FULL_ERRNOS


@contextmanager
def translated(digest: Digest | None = None) -> Iterator[None]:
    """Around calls to the store only, so that errors of other files keep their own names.

    Without a digest nothing is looked for, so "not found" can only mean the place itself.

    Raises:
        BlobMissingError: the store has no such blob.
        StorageFullError: no space, or over quota.
        ConfigurationError: no such bucket, or access refused.
        UnavailableError: the store does not answer, or answers nonsense.

    """
    from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError

    try:
        yield
    except FileNotFoundError as error:
        if digest is None:
            raise ConfigurationError(f"The artifact store does not exist: {_line(error)}") from error
        raise BlobMissingError(f"The artifact {digest} is not in the store.", digest=digest) from error
    except (PermissionError, PermissionDeniedError, UnauthenticatedError) as error:
        raise ConfigurationError(f"The artifact store refused access: {_line(error)}") from error
    except OSError as error:
        if is_full(error):
            raise StorageFullError from error
        raise UnavailableError(f"The artifact store failed: {_line(error)}") from error
    except BaseError as error:
        if _FULL.search(str(error)):
            raise StorageFullError from error
        if digest is None and _NO_PLACE in str(error):
            raise ConfigurationError(f"The artifact store does not exist: {_line(error)}") from error
        raise UnavailableError(f"The artifact store failed: {_line(error)}") from error


def _line(error: Exception) -> str:
    return str(error).partition("\n")[0]
