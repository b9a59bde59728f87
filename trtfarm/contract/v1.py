"""Documents of the HTTP API, version 1."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import AwareDatetime, Field, NonNegativeInt, PositiveInt, model_validator

from trtfarm.contract.benchmark import BenchmarkOptions, BenchmarkView
from trtfarm.contract.builder_config import BuilderConfig
from trtfarm.contract.device import Device
from trtfarm.contract.digest import Digest
from trtfarm.contract.forecast import Forecast
from trtfarm.contract.jobs import Disposition, JobKind, JobState, Outcome, Scope
from trtfarm.contract.models import ExternalFile
from trtfarm.contract.names import ModelReference
from trtfarm.contract.profiles import OptimizationProfile, TensorInfo
from trtfarm.contract.target import Target
from trtfarm.contract.timing_cache import TimingCacheUse, TimingCacheView
from trtfarm.contract.value import Value
from trtfarm.contract.worker import WorkerCondition
from trtfarm.errors import BuildError, InvalidRequestError, JobCancelledError, from_code

MAX_TIMEOUT_SECONDS = 7 * 24 * 3600
DEFAULT_TIMEOUT_SECONDS = 4 * 3600
VERSION_HEADER = "Trtfarm-Version"
EMBEDDED_HOST = "embedded.trtfarm"  # a farm on a Unix socket
"""Of every answer: the farm's version."""
Priority = Annotated[int, Field(ge=-100, le=100)]


class Problem(Value):
    """RFC 9457 problem details with a stable ``code``."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    code: str
    hint: str | None = None
    details: dict[str, Any] = Field(default_factory=dict)


class UploadRequest(Value):
    """Announces one file. ``external_data`` lists a model's other files, which are uploaded before it."""

    digest: Digest
    size_bytes: PositiveInt
    kind: Annotated[str, Field(pattern="^(model|external_data|timing_cache|input)$")] = "model"
    external_data: tuple[ExternalFile, ...] = ()


class UploadView(Value):
    """``offset`` is the number of bytes that are safe; send on from there."""

    upload_id: str
    digest: Digest
    size_bytes: int
    offset: int
    complete: bool
    model: Digest | None = None


class ModelView(Value):
    digest: Digest
    size_bytes: int
    opsets: dict[str, int]
    ir_version: int
    node_count: int
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    external_data: tuple[ExternalFile, ...]
    created_at: AwareDatetime


class TargetRequest(Value):
    """``gpu``: a slug, a product name or a capability (``cc-8.9``). ``runtime``: a flavour, or exact."""

    gpu: Annotated[str, Field(min_length=1, max_length=80)]
    runtime: Annotated[str, Field(max_length=80)] | None = None
    platform: Annotated[str, Field(max_length=40)] | None = None


class JobRequest(Value):
    """A build of ``model``, or with ``kind`` benchmark, a measurement of ``plan``.

    A model's name is looked up once, when the request arrives. A benchmark runs on a GPU: ``target.gpu``
    is a product, by default the one the plan was built for.
    """

    kind: JobKind = JobKind.BUILD
    model: ModelReference | None = None
    plan: Digest | None = None
    benchmark: BenchmarkOptions | None = None
    target: TargetRequest | None = None
    config: BuilderConfig = Field(default_factory=BuilderConfig)
    profiles: tuple[OptimizationProfile, ...] = ()
    priority: Priority = 0
    timeout_seconds: Annotated[float, Field(gt=0, le=MAX_TIMEOUT_SECONDS)] = DEFAULT_TIMEOUT_SECONDS
    wait_for_worker: bool = False

    @model_validator(mode="after")
    def _complete(self) -> Self:
        build = self.kind is JobKind.BUILD
        needed = (self.model, self.target) if build else (self.plan,)
        superfluous = (self.plan, self.benchmark) if build else (self.model,)
        if None in needed or any(each is not None for each in superfluous):
            raise InvalidRequestError(
                "A build takes model and target."
                if build
                else "A benchmark takes plan, benchmark and target."
            )
        return self


class ErrorView(Value):
    code: str
    message: str
    hint: str | None = None
    details: dict[str, Any] = Field(default_factory=dict)


class PlanView(Value):
    """A plan and where it fits. ``io`` and ``log`` name artifacts."""

    digest: Digest
    size_bytes: int
    model: Digest
    target: Target
    build_key: str
    build_seconds: float
    job_id: str
    config: BuilderConfig
    profiles: tuple[OptimizationProfile, ...]
    io: Digest | None
    log: Digest | None
    timing_cache: TimingCacheUse | None = None
    created_at: AwareDatetime


class Progress(Value):
    """Where a running attempt stands. ``fraction``: 0 to 1, where the runtime tells it."""

    stage: str
    fraction: float | None = None


class AttemptView(Value):
    number: int
    worker_id: str
    started_at: AwareDatetime
    ended_at: AwareDatetime | None
    outcome: Outcome | None
    error: ErrorView | None
    log: Digest | None


class JobView(Value):
    """``queue_position`` (0: next) and ``forecast`` come with a live job that is asked for."""

    job_id: str
    kind: JobKind
    state: JobState
    model: Digest
    target: Target
    queue: str
    config: BuilderConfig
    profiles: tuple[OptimizationProfile, ...]
    build_key: str
    priority: int
    timeout_seconds: float
    attempt: NonNegativeInt
    worker_id: str | None
    progress: Progress | None
    cancel_requested: bool
    created_at: AwareDatetime
    started_at: AwareDatetime | None
    finished_at: AwareDatetime | None
    build_seconds: float | None
    plan: PlanView | None
    benchmark: BenchmarkView | None = None
    error: ErrorView | None
    queue_position: int | None = None
    forecast: Forecast | None = None
    attempts: tuple[AttemptView, ...] | None = None

    def raise_for_state(self) -> Self:
        """The job itself, if nothing went wrong.

        Raises:
            TrtFarmError: what it failed of, by kind; a BuildError where TensorRT gave the reason.
            JobCancelledError: it was cancelled.
        """
        if self.error is not None:
            told = self.error
            raise from_code(told.code, told.message, told.hint, told.details, otherwise=BuildError)
        if self.state is JobState.CANCELLED:
            raise JobCancelledError(f"Job {self.job_id} was cancelled.")
        return self


class PriorityRequest(Value):
    priority: Priority


class CancelledJobView(JobView):
    """The job as it is now. ``others``: participants that it goes on for; 0: it ends."""

    others: int


class CancelRequest(Value):
    """Which queued jobs to cancel: the caller's own, or with scope admin ``everyones``."""

    model: Digest | None = None
    gpu: Annotated[str, Field(max_length=80)] | None = None
    everyones: bool = False


class CancelledView(Value):
    """``shared``: jobs that go on, as others have submitted them, too. ``more``: ask again."""

    cancelled: int
    shared: int
    more: bool


class SubmissionView(Value):
    """The answer to a submission: what it did, and the job it stands for."""

    disposition: Disposition
    job: JobView


class JobEvent(Value):
    id: int
    job_id: str
    kind: str
    at: AwareDatetime
    data: dict[str, Any]


class WorkerView(Value):
    """``gpus``: what it builds for. ``alive``: not stopped, and seen within the last minute."""

    worker_id: str
    hostname: str
    runtime: str
    platform: str
    gpus: tuple[str, ...]
    slots: int
    device: Device | None = None
    running: int
    alive: bool
    draining: bool
    condition: WorkerCondition = WorkerCondition()
    started_at: AwareDatetime
    last_seen_at: AwareDatetime

    @property
    def claims(self) -> bool:
        """It takes new jobs now, or once it has a slot free."""
        return self.alive and not self.draining and not self.condition.paused


class QueueView(Value):
    """``workers`` that claim from it, and their ``slots``, which they share with their other queues."""

    queue: str
    queued: int
    running: int
    workers: int
    slots: int


class FleetView(Value):
    workers: tuple[WorkerView, ...]
    queues: tuple[QueueView, ...]


class KeyView(Value):
    """``max_running``: how many of its jobs may run at a time; None: no limit.

    ``max_bytes``: of what it has uploaded and announced; None: no limit of its own.
    """

    key_id: str
    name: str
    scope: Scope
    max_running: int | None
    max_bytes: int | None
    created_at: AwareDatetime
    last_used_at: AwareDatetime | None
    revoked_at: AwareDatetime | None


class Page(Value):
    """``next`` goes into ``?cursor=`` for the following page; None on the last one."""

    next: str | None


class JobPage(Page):
    jobs: tuple[JobView, ...]


class BenchmarkPage(Page):
    benchmarks: tuple[BenchmarkView, ...]


class TimingCacheImport(Value):
    """An uploaded timing cache, for the GPUs of one kind; ``runtime`` as for a target."""

    digest: Digest
    gpu: Annotated[str, Field(min_length=1, max_length=80)]
    runtime: Annotated[str, Field(max_length=80)] | None = None


class TimingCacheList(Value):
    timing_caches: tuple[TimingCacheView, ...]


class PlanPage(Page):
    plans: tuple[PlanView, ...]
