"""What passes between a worker and the database."""

from __future__ import annotations

from pydantic import Field, NonNegativeInt

from trtfarm.contract.benchmark import BenchmarkOptions, Measurement
from trtfarm.contract.device import Device
from trtfarm.contract.digest import Digest
from trtfarm.contract.jobs import LOCAL, JobKind, Outcome
from trtfarm.contract.spec import BuildSpec
from trtfarm.contract.timing_cache import TimingCacheUse
from trtfarm.contract.v1 import ErrorView
from trtfarm.contract.value import Value

OLDEST_EVERY = 10
"""Every so many claims of a worker take the oldest job of its queues, whatever its priority: however many
urgent jobs keep coming, a tenth of the slots works off the others in the order of their submission."""


class RetryPolicy(Value):
    """How often a job is tried when its attempts end for reasons that are not its own.

    ``backoff_seconds`` doubles with each attempt.
    """

    max_attempts: int = Field(default=3, ge=1)
    max_crashes: int = Field(default=2, ge=1)
    backoff_seconds: float = Field(default=2.0, ge=0)


class BenchmarkWork(Value):
    """What a benchmark job measures. ``input_sizes``: bytes of the options' ``inputs``, by name."""

    plan: Digest
    plan_size_bytes: int
    options: BenchmarkOptions
    input_sizes: dict[str, int] = Field(default_factory=dict)


class Claim(Value):
    """The right to execute one attempt, until the lease runs out or the fence moves on.

    ``spec``: of the build; of a benchmark job, what its plan was built from. ``submitter``: on whose behalf
    it runs, an opaque name of the participant that the attempt is charged to.
    """

    job_id: str
    kind: JobKind = JobKind.BUILD
    fence: int
    attempt: int
    spec: BuildSpec
    benchmark: BenchmarkWork | None = None
    timeout_seconds: float
    submitter: str = LOCAL


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
    timing_cache: TimingCacheUse | None = None


class BenchmarkResult(Value):
    measurement: Measurement
    device: Device
    log: PublishedBlob | None
    times: PublishedBlob | None
    layer_profile: PublishedBlob | None
    layer_information: PublishedBlob | None


class AttemptFailure(Value):
    """An attempt that gave no result.

    Attributes:
        retryable: the cause lies outside the job (a lost worker, a full disk, a crash).
    """

    outcome: Outcome
    error: ErrorView
    retryable: bool = False
    log: PublishedBlob | None = None

    @property
    def counts_as_crash(self) -> bool:
        """Also a process that stood still: another one may not, and then again it may."""
        return self.outcome is Outcome.CRASHED or (self.outcome is Outcome.TIMEOUT and self.retryable)


class WorkerInfo(Value):
    """What a worker says of itself when it starts.

    ``gpus``: products or ``cc-8.9`` that it builds for. ``device``: the GPU it sits on, if it holds one.
    """

    worker_id: str
    hostname: str
    runtime: str
    platform: str
    gpus: tuple[str, ...]
    slots: int
    device: Device | None = None
