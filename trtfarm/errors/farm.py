"""The farm itself, and who may use it."""

from __future__ import annotations

from trtfarm.errors.base import TrtFarmError


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


class QuotaExceededError(TrtFarmError):
    """That is more than one submitter may have."""

    code = "QUOTA_EXCEEDED"


class ForeignHostError(AuthError):
    """The request names another host."""

    code = "HOST_REFUSED"


class ForeignOriginError(AuthError):
    """The request comes from a page of another site."""

    code = "ORIGIN_REFUSED"


class ProxyWithoutKeysError(AuthError):
    """A farm without keys takes no request that came through a proxy."""

    code = "PROXY_WITHOUT_KEYS"


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


class IncompatibleFarmError(ConfigurationError):
    """The farm is of a version that this client does not understand."""

    code = "INCOMPATIBLE_FARM"


class AnswerMismatchError(TrtFarmError):
    """The answer is about something else than what was asked for."""

    code = "ANSWER_MISMATCH"


class AnswerTooLargeError(TrtFarmError):
    """The answer is larger than any that a farm gives."""

    code = "ANSWER_TOO_LARGE"


class LocalFileError(TrtFarmError):
    """A file or folder on this machine cannot be read or written."""

    code = "LOCAL_FILE"


class BuildError(TrtFarmError):
    """TensorRT did not build the engine."""

    code = "BUILD_FAILED"
