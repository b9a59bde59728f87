"""Things that are not there, or not in the right state."""

from __future__ import annotations

from trtfarm.errors.base import TrtFarmError


class NotFoundError(TrtFarmError):
    """There is no such thing."""

    code = "NOT_FOUND"


class ModelNotFoundError(NotFoundError):
    """The farm does not have that model; upload it first."""

    code = "MODEL_NOT_FOUND"


class NameNotFoundError(ModelNotFoundError):
    """No model of the farm has that name."""

    code = "NAME_NOT_FOUND"


class NoPlanFitsError(NotFoundError):
    """No plan of the model fits the machine."""

    code = "NO_PLAN_FITS"


class ConflictError(TrtFarmError):
    """That is not possible in the present state."""

    code = "CONFLICT"


class JobTerminalError(ConflictError):
    """The job has already ended."""

    code = "JOB_TERMINAL"


class JobCancelledError(ConflictError):
    """The job was cancelled."""

    code = "CANCELLED"


class JobNotFinishedError(ConflictError):
    """The job has not finished yet."""

    code = "JOB_NOT_FINISHED"


class NotExportableError(ConflictError):
    """These plans cannot be deployed together."""

    code = "NOT_EXPORTABLE"


class IdempotencyConflictError(ConflictError):
    """This Idempotency-Key was used for a different request."""

    code = "IDEMPOTENCY_CONFLICT"


class StaleFenceError(ConflictError):
    """The attempt was superseded; its result is discarded."""

    code = "STALE_FENCE"


class GpuBusyError(ConflictError):
    """Another attempt is running on this GPU."""

    code = "GPU_BUSY"
