"""Why an attempt gave no result, in the farm's words, and whether another one may."""

from __future__ import annotations

from trtfarm.contract.jobs import Outcome
from trtfarm.contract.leases import AttemptFailure
from trtfarm.contract.v1 import ErrorView
from trtfarm.errors import (
    BlobCorruptError,
    ConfigurationError,
    NotFoundError,
    StorageFullError,
    TrtFarmError,
    UnavailableError,
)
from trtfarm.store import is_full

GPU_FAILED = "GPU_FAILED"
CANCELLED = ErrorView(code="CANCELLED", message="The job was cancelled.")


def of_farm(error: TrtFarmError) -> AttemptFailure:
    view = ErrorView(code=error.code, message=error.message, hint=error.hint, details=error.details)
    if isinstance(error, NotFoundError | BlobCorruptError):
        view = ErrorView(
            code="INPUT_LOST",
            message=f"What the job needs is missing or damaged in the artifact store: {error.message}",
            hint="Upload the model (or build the plan) again, then retry the job.",
        )
    # ConfigurationError: the child could not be started again, here and now.
    retryable = isinstance(error, UnavailableError | StorageFullError | ConfigurationError)
    return AttemptFailure(outcome=Outcome.FAILED, error=view, retryable=retryable)


def of_file(error: OSError) -> AttemptFailure:
    """Of the worker's own disk."""
    if is_full(error):
        return _not_the_jobs(StorageFullError.code, "The worker's scratch folder has no space left.")
    return _not_the_jobs("WORKER_IO", f"The worker could not read or write a file: {error}")


def of_stall(seconds: float) -> AttemptFailure:
    """Tried again, at the cost of a crash."""
    error = ErrorView(
        code="BUILD_STALLED",
        message=f"The process at work on the job did nothing for {seconds:g} seconds, and was killed.",
        hint="The job's log has its last words. worker.no_progress_seconds is how long it may be still.",
    )
    return AttemptFailure(outcome=Outcome.TIMEOUT, error=error, retryable=True)


def is_the_gpus(error: ErrorView) -> bool:
    """Whether it says that the GPU or its driver does not work."""
    return error.code == GPU_FAILED


def of_worker(error: Exception) -> AttemptFailure:
    return _not_the_jobs("INTERNAL", f"The worker failed: {error!r}")


def _not_the_jobs(code: str, message: str) -> AttemptFailure:
    return AttemptFailure(outcome=Outcome.FAILED, error=ErrorView(code=code, message=message), retryable=True)
