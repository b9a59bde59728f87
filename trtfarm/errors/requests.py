"""What was asked for is wrong; asking again gives the same answer."""

from __future__ import annotations

from trtfarm.errors.base import InvalidRequestError


class InvalidDigestError(InvalidRequestError, ValueError):
    """A digest is written sha256: and 64 lower-case hexadecimal digits."""

    code = "INVALID_DIGEST"


class InvalidNameError(InvalidRequestError, ValueError):
    """That is not a name of a model."""

    code = "INVALID_NAME"


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


class InvalidJsonError(InvalidRequestError):
    """The body is not valid JSON."""

    code = "INVALID_JSON"


class BodyTooLargeError(InvalidRequestError):
    """The request's body is too large."""

    code = "BODY_TOO_LARGE"


class BodyTimeoutError(InvalidRequestError):
    """The request's body did not arrive in time."""

    code = "BODY_TIMEOUT"


class InvalidCursorError(InvalidRequestError):
    """That cursor did not come from this list."""

    code = "INVALID_CURSOR"


class RangeUnsatisfiableError(InvalidRequestError):
    """The range lies outside of the artifact."""

    code = "RANGE_UNSATISFIABLE"
