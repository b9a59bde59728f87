"""What passes between a worker and the database."""

from __future__ import annotations

from pydantic import Field, NonNegativeInt

from trtfarm.contract.digest import Digest
from trtfarm.contract.jobs import Outcome
from trtfarm.contract.spec import BuildSpec
from trtfarm.contract.v1 import ErrorView
from trtfarm.contract.value import Value


class RetryPolicy(Value):
    """How often a job is tried when its attempts end for reasons that are not its own.

    ``backoff_seconds`` doubles with each attempt.
    """

    max_attempts: int = Field(default=3, ge=1)
    max_crashes: int = Field(default=2, ge=1)
    backoff_seconds: float = Field(default=2.0, ge=0)


class Claim(Value):
    """The right to execute one attempt, until the lease runs out or the fence moves on."""

    job_id: str
    fence: int
    attempt: int
    spec: BuildSpec
    timeout_seconds: float


class Renewal(Value):
    cancel_requested: bool


class PublishedBlob(Value):
    """A blob that is in the store and verified."""

    digest: Digest
    size_bytes: NonNegativeInt
    etag: str


class BuildResult(Value):
    plan: PublishedBlob
    io: PublishedBlob | None
    log: PublishedBlob | None
    build_seconds: float


class AttemptFailure(Value):
    """An attempt that gave no plan.

    Attributes:
        retryable: the cause lies outside the job (a lost worker, a full disk, a crash).
    """

    outcome: Outcome
    error: ErrorView
    retryable: bool = False
    log: PublishedBlob | None = None


class WorkerInfo(Value):
    """What a worker says of itself when it starts. ``gpus``: products or ``cc-8.9`` that it builds for."""

    worker_id: str
    hostname: str
    runtime: str
    platform: str
    gpus: tuple[str, ...]
    slots: int
