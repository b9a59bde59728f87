"""Every failure that a person can meet, as one tree of exceptions.

The docstring of a class is its default message. ``code`` is stable: it appears in HTTP answers,
in the CLI and in the database, and never changes its meaning. HTTP statuses are the API's affair.
"""

from __future__ import annotations

import inspect
from typing import Any, ClassVar


class TrtFarmError(Exception):
    """The farm could not do what was asked."""

    code: ClassVar[str] = "INTERNAL"

    def __init__(self, message: str | None = None, *, hint: str | None = None, **details: Any) -> None:
        self.message = message or inspect.cleandoc(type(self).__doc__ or "").partition("\n")[0]
        self.hint = hint
        self.details = details
        super().__init__(self.message)

    def __str__(self) -> str:
        return f"{self.message} {self.hint}" if self.hint else self.message

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickles whole, so that an error crosses a process boundary with its hint and details."""
        return _rebuild, (type(self), self.message, self.hint, self.details)


def _rebuild(
    kind: type[TrtFarmError], message: str, hint: str | None, details: dict[str, Any]
) -> TrtFarmError:
    return kind(message, hint=hint, **details)


# --- what was asked for is wrong; asking again gives the same answer -------------------------------


class InvalidRequestError(TrtFarmError):
    """The request is not valid."""

    code = "VALIDATION_ERROR"


class InvalidDigestError(InvalidRequestError, ValueError):
    """A digest is written sha256: and 64 lower-case hexadecimal digits."""

    code = "INVALID_DIGEST"


class UnknownGpuError(InvalidRequestError):
    """No GPU of that name is known."""

    code = "UNKNOWN_GPU"


class UnknownRuntimeError(InvalidRequestError):
    """No TensorRT runtime of that name is known."""

    code = "UNKNOWN_RUNTIME"


class TargetUnavailableError(InvalidRequestError):
    """No worker of this farm builds for that target."""

    code = "TARGET_UNAVAILABLE"


class OptionUnknownError(InvalidRequestError):
    """There is no such build option."""

    code = "OPTION_UNKNOWN"


class OptionUnsupportedError(InvalidRequestError):
    """The runtime cannot honour that option."""

    code = "OPTION_UNSUPPORTED"


class ProfileInvalidError(InvalidRequestError, ValueError):
    """The optimization profile contradicts itself or the model."""

    code = "PROFILE_INVALID"


class ProfileRequiredError(InvalidRequestError):
    """The model has dynamic inputs and needs an optimization profile."""

    code = "PROFILE_REQUIRED"


class ModelError(InvalidRequestError):
    """The model cannot be read."""

    code = "ONNX_PARSE_ERROR"


class NotOnnxError(ModelError):
    """The file is not an ONNX model."""

    code = "NOT_ONNX"


class InvalidGraphError(ModelError):
    """The ONNX graph is not valid."""

    code = "ONNX_INVALID_GRAPH"


class ExternalDataError(ModelError):
    """The model's external data is missing or not allowed."""

    code = "EXTERNAL_DATA_INVALID"


class ExternalDataMissingError(ExternalDataError):
    """The model names external data that was not given."""

    code = "EXTERNAL_DATA_MISSING"


class ExternalDataPathError(ExternalDataError, ValueError):
    """The model places external data outside its own folder."""

    code = "EXTERNAL_DATA_FORBIDDEN_PATH"


class ExternalDataKeyError(ExternalDataError):
    """The model describes external data with a key that ONNX does not have."""

    code = "EXTERNAL_DATA_UNKNOWN_KEY"


class ExternalDataRangeError(ExternalDataError):
    """The model reads external data beyond the end of the file."""

    code = "EXTERNAL_DATA_RANGE"


class OnnxTruncatedError(ModelError):
    """The file is the beginning of an ONNX model; the rest is missing."""

    code = "ONNX_TRUNCATED"


class OnnxTooLargeError(ModelError):
    """An ONNX file may have 2 GiB at most; larger weights belong in external data."""

    code = "ONNX_PROTO_TOO_LARGE"


class OnnxTooDeepError(ModelError):
    """The model's subgraphs are nested too deep."""

    code = "ONNX_TOO_DEEP"


class OnnxTooComplexError(ModelError):
    """The model has more parts than this farm accepts."""

    code = "ONNX_TOO_COMPLEX"


class OnnxOpsetError(ModelError):
    """The model's IR version or operator set does not exist."""

    code = "ONNX_UNSUPPORTED_OPSET"


class OnnxFunctionError(ModelError):
    """The model's functions call themselves or expand to too many nodes."""

    code = "ONNX_FUNCTION_EXPANSION"


class ResourceLimitError(ModelError):
    """Reading the model takes more memory or time than this farm allows."""

    code = "RESOURCE_LIMIT"


# --- things that are not there, or not in the right state ------------------------------------------


class NotFoundError(TrtFarmError):
    """There is no such thing."""

    code = "NOT_FOUND"


class ModelNotFoundError(NotFoundError):
    """The farm does not have that model; upload it first."""

    code = "MODEL_NOT_FOUND"


class ConflictError(TrtFarmError):
    """That is not possible in the present state."""

    code = "CONFLICT"


class JobTerminalError(ConflictError):
    """The job has already ended."""

    code = "JOB_TERMINAL"


class JobNotFinishedError(ConflictError):
    """The job has not finished yet."""

    code = "JOB_NOT_FINISHED"


class IdempotencyConflictError(ConflictError):
    """This Idempotency-Key was used for a different request."""

    code = "IDEMPOTENCY_CONFLICT"


class StaleFenceError(ConflictError):
    """The attempt was superseded; its result is discarded."""

    code = "STALE_FENCE"


class GpuBusyError(ConflictError):
    """Another attempt is running on this GPU."""

    code = "GPU_BUSY"


# --- uploads and blobs ------------------------------------------------------------------------------


class OffsetMismatchError(ConflictError):
    """The bytes do not start where the upload stands."""

    code = "OFFSET_MISMATCH"


class UploadLockedError(ConflictError):
    """Another request is writing to this upload."""

    code = "UPLOAD_LOCKED"


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


# --- who may ----------------------------------------------------------------------------------------


class AuthError(TrtFarmError):
    """Access was refused."""

    code = "AUTH_INVALID"


class AuthRequiredError(AuthError):
    """This farm needs an API key."""

    code = "AUTH_REQUIRED"


class KeyRevokedError(AuthError):
    """This API key was revoked."""

    code = "KEY_REVOKED"


class ScopeMissingError(AuthError):
    """This API key does not have the scope for that."""

    code = "SCOPE_MISSING"


# --- the farm itself --------------------------------------------------------------------------------


class UnavailableError(TrtFarmError):
    """A part of the farm cannot be reached just now; try again."""

    code = "UNAVAILABLE"


class DatabaseUnavailableError(UnavailableError):
    """The database cannot be reached just now; try again."""

    code = "DB_UNAVAILABLE"


class FarmUnreachableError(UnavailableError):
    """The farm does not answer."""

    code = "FARM_UNREACHABLE"


class ConfigurationError(TrtFarmError):
    """The settings do not work."""

    code = "CONFIGURATION"


class LocalFileError(TrtFarmError):
    """A file or folder on this machine cannot be read or written."""

    code = "LOCAL_FILE"


class BuildError(TrtFarmError):
    """TensorRT did not build the engine."""

    code = "BUILD_FAILED"


class InvalidJsonError(InvalidRequestError):
    """The body is not valid JSON."""

    code = "INVALID_JSON"


class BodyTooLargeError(InvalidRequestError):
    """The request's body is too large."""

    code = "BODY_TOO_LARGE"


class InvalidCursorError(InvalidRequestError):
    """That cursor did not come from this list."""

    code = "INVALID_CURSOR"


class RangeUnsatisfiableError(InvalidRequestError):
    """The range lies outside of the artifact."""

    code = "RANGE_UNSATISFIABLE"


def from_code(
    code: str, message: str, hint: str | None = None, details: dict[str, Any] | None = None
) -> TrtFarmError:
    """The error that an answer of the API or a failed job tells of."""
    kind = _by_code(TrtFarmError).get(code)
    if kind is not None:
        return kind(message, hint=hint, **(details or {}))
    # A newer farm may know more codes than this client.
    unknown: type[TrtFarmError] = type("UnknownError", (TrtFarmError,), {"code": code})
    return unknown(message, hint=hint, **(details or {}))


def _by_code(root: type[TrtFarmError]) -> dict[str, type[TrtFarmError]]:
    found = {root.code: root}
    for kind in root.__subclasses__():
        found = _by_code(kind) | found
    return found
