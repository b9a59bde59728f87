"""Uploads, and the bytes in the store."""

from __future__ import annotations

from trtfarm.errors.base import InvalidRequestError, TrtFarmError
from trtfarm.errors.farm import UnavailableError
from trtfarm.errors.state import ConflictError, NotFoundError


class OffsetMismatchError(ConflictError):
    """The bytes do not start where the upload stands."""

    code = "OFFSET_MISMATCH"


class UploadLockedError(ConflictError):
    """Another request is writing to this upload."""

    code = "UPLOAD_LOCKED"


class UploadExpiredError(NotFoundError):
    """Nothing came for this upload for too long, and its bytes were dropped."""

    code = "UPLOAD_EXPIRED"


class SizeExceededError(InvalidRequestError):
    """More bytes were sent than were declared."""

    code = "SIZE_EXCEEDED"


class UploadTooLargeError(InvalidRequestError):
    """The file is larger than this farm accepts."""

    code = "UPLOAD_TOO_LARGE"


class DigestMismatchError(InvalidRequestError):
    """The bytes do not have the digest that was declared."""

    code = "DIGEST_MISMATCH"


class BlobCorruptError(TrtFarmError):
    """A stored artifact is damaged and was taken out of service."""

    code = "BLOB_CORRUPT"


class BlobMissingError(NotFoundError):
    """A stored artifact is gone."""

    code = "BLOB_MISSING"


class StorageFullError(TrtFarmError):
    """There is no space left in the artifact store."""

    code = "INSUFFICIENT_STORAGE"


class TooManyUploadsError(UnavailableError):
    """Too many uploads of this key wait to be looked at; try again."""

    code = "TOO_MANY_UPLOADS"
