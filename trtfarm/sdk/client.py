"""A client of the HTTP API, in the caller's thread."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Self, Unpack

import httpx

from trtfarm.contract.benchmark import BenchmarkOptions
from trtfarm.contract.digest import Digest
from trtfarm.contract.jobs import JobState
from trtfarm.contract.models import ModelManifest
from trtfarm.contract.names import ModelName, ModelPage, NamePage, NameView
from trtfarm.contract.resolve import ResolveRequest, ResolveView
from trtfarm.contract.timing_cache import TimingCacheView
from trtfarm.contract.triton import TritonModel
from trtfarm.contract.v1 import (
    BenchmarkPage,
    CancelledJobView,
    CancelledView,
    CancelRequest,
    FleetView,
    JobPage,
    JobRequest,
    JobView,
    ModelView,
    PlanPage,
    PlanView,
    SubmissionView,
)
from trtfarm.files import PathLike
from trtfarm.sdk import calls, connection, export, follow, requests, transfer
from trtfarm.sdk.calls import Job, OnBytes, Plan, Reference
from trtfarm.sdk.campaigns import Campaigns
from trtfarm.sdk.export import Models, TritonOptions
from trtfarm.sdk.orders import Orders
from trtfarm.sdk.requests import BuildOptions
from trtfarm.sdk.running import Runner
from trtfarm.sdk.transfer import Model


class FarmClient:
    """Talks to one farm. Calls that a farm may have missed are repeated; none takes effect twice.

    ``AsyncFarmClient`` has the same methods for event loops. Threads may share a client.
    A ``Job`` is named by its id, or by a view or a submission of it.

    Raises:
        ConfigurationError: that is not the address of a farm.
        AuthError: that cannot be a key.

    Raises, from every method:
        FarmUnreachableError: nobody answers.
        TrtFarmError: by kind, as the farm says.
    """

    def __init__(
        self, url: str, api_key: str | None = None, transport: httpx.BaseTransport | None = None
    ) -> None:
        self.url = url
        self._http = httpx.Client(**connection.options(url, api_key), transport=transport)
        self._runner = Runner(self._http)
        self._run = self._runner.run
        self.campaigns = Campaigns(self._runner)
        self.orders = Orders(self._runner)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    # --- models ---

    def upload(self, model: Model, on_bytes: OnBytes | None = None) -> Digest:
        """A model as a path, with external data beside it, as bytes, or as made with the onnx package.

        Sends what the farm does not have yet, and resumes what was begun. ``on_bytes`` gets the number of
        bytes of each step; a negative one where they must be sent again.

        Raises:
            ModelError: it is none that a farm takes.
        """
        return self._run(transfer.upload(model, on_bytes))

    def upload_model(self, path: Path, manifest: ModelManifest, on_bytes: OnBytes | None = None) -> Digest:
        """As ``upload``, for a file whose manifest is known."""
        return self._run(transfer.upload_model(path, manifest, on_bytes))

    def upload_input(self, path: Path, on_bytes: OnBytes | None = None) -> Digest:
        """Raw values of an input, in C order, for a benchmark's ``inputs``."""
        return self._run(transfer.upload_input(path, on_bytes))

    def has_model(self, digest: Digest) -> bool:
        return self._run(calls.has_model(digest))

    def model(self, reference: Reference) -> ModelView:
        return self._run(calls.model(reference))

    def models(self, *, limit: int = 50, **filters: str | None) -> ModelPage:
        """Newest first, with their names. ``filters``: name, cursor."""
        return self._run(calls.models(limit=limit, **filters))

    def names(self, *, limit: int = 50, **filters: str | None) -> NamePage:
        """In alphabetical order. ``filters``: name, model, cursor."""
        return self._run(calls.names(limit=limit, **filters))

    def name(self, reference: ModelName) -> NameView:
        """What a name stands for, with its moves."""
        return self._run(calls.name(reference))

    def tag(self, model: Reference, reference: ModelName) -> NameView:
        """Makes ``reference`` stand for a model that the farm has."""
        return self._run(calls.tag(model, reference))

    def untag(self, reference: ModelName) -> None:
        return self._run(calls.untag(reference))

    # --- jobs ---

    def build(self, model: Model, gpu: str, **options: Unpack[BuildOptions]) -> SubmissionView:
        """Submits a build of a model: a digest or name, else what ``upload`` takes.

        ``gpu``: a product (``rtx-4090``) or a capability (``cc-8.9``). ``options``: see ``BuildOptions``.
        """
        return self._run(transfer.build(model, gpu, options))

    def benchmark(
        self, plan: Plan, gpu: str | None = None, options: BenchmarkOptions | None = None
    ) -> SubmissionView:
        """Submits a measurement on ``gpu``, by default the one that the plan was built for."""
        return self.submit(requests.benchmark(plan, gpu, options))

    def submit(self, request: JobRequest) -> SubmissionView:
        return self._run(calls.submit(request))

    def job(self, job: Job) -> JobView:
        return self._run(calls.job(job))

    def jobs(self, *, states: tuple[JobState, ...] = (), limit: int = 50, **filters: str | None) -> JobPage:
        """Newest first. ``filters``: model, gpu, cursor."""
        return self._run(calls.jobs(states=states, limit=limit, **filters))

    def follow(self, job: Job) -> Iterator[JobView]:
        """The job as it changes, until it has ended. Survives a restart of the farm."""
        return self._runner.each(follow.follow(job))

    def wait(self, job: Job) -> JobView:
        """The job as it ended."""
        return self._run(follow.follow(job))

    def as_completed(self, jobs: Iterable[Job]) -> Iterator[JobView]:
        """Each job once, as it ends."""
        return self._runner.each(follow.as_completed(jobs))

    def cancel(self, job: Job, *, everyones: bool = False) -> CancelledJobView:
        """Withdraws this caller's submission; the job ends if nobody else has submitted it.

        ``everyones``: it ends whoever else waits for it; needs scope admin.
        """
        return self._run(calls.cancel(job, everyones=everyones))

    def cancel_queued(self, request: CancelRequest) -> CancelledView:
        """As ``cancel``, for queued jobs of this caller, or of everyone."""
        return self._run(calls.cancel_queued(request))

    def prioritize(self, job: Job, priority: int) -> JobView:
        """Another priority for a job that waits."""
        return self._run(calls.prioritize(job, priority))

    def retry(self, job: Job) -> SubmissionView:
        return self._run(calls.retry(job))

    def log(self, job: Job) -> str:
        return self._run(calls.log(job))

    # --- plans ---

    def plan(self, digest: Digest) -> PlanView:
        return self._run(calls.plan(digest))

    def plans(self, *, limit: int = 50, **filters: str | None) -> PlanPage:
        """Newest first. ``filters``: model, gpu, runtime, cursor."""
        return self._run(calls.plans(limit=limit, **filters))

    def resolve(self, question: ResolveRequest) -> ResolveView:
        """The best plan for a machine; with ``build``, a job on a miss."""
        return self._run(calls.resolve(question))

    def pull(self, plan: Plan, destination: PathLike, on_bytes: OnBytes | None = None) -> Path:
        """Downloads a plan; resumes, verifies, and replaces ``destination`` only by the whole of it.

        Raises:
            BlobCorruptError: other bytes arrived.
        """
        return self._run(transfer.pull(plan, destination, on_bytes))

    def export_triton(
        self, models: Models, destination: PathLike, **options: Unpack[TritonOptions]
    ) -> tuple[TritonModel, ...]:
        """Writes a Triton model repository: name → a plan for each compute capability.

        It is whole and verified when it gets its name.

        Raises:
            NotExportableError: the plans of a model cannot be deployed together.
            LocalFileError: ``destination`` is there already.
        """
        return self._run(export.triton(models, destination, **options))

    def artifact(self, digest: Digest) -> bytes:
        """A small artifact, as an I/O description."""
        return self._run(calls.artifact(digest))

    # --- what GPUs teach ---

    def benchmarks(self, *, limit: int = 50, **filters: str | None) -> BenchmarkPage:
        """Newest first. ``filters``: plan, model, gpu, runtime, cursor."""
        return self._run(calls.benchmarks(limit=limit, **filters))

    def timing_caches(self, key: str | None = None) -> tuple[TimingCacheView, ...]:
        """The newest revision of each, or every revision of one."""
        return self._run(calls.timing_caches(key))

    def timing_cache(self, key: str, revision: int | None = None) -> bytes:
        """A revision's bytes, by default the newest's; verified."""
        return self._run(calls.timing_cache(key, revision))

    def import_timing_cache(self, path: Path, gpu: str, runtime: str | None = None) -> TimingCacheView:
        """Publishes a file as the newest revision; needs a key with scope admin."""
        return self._run(transfer.import_timing_cache(path, gpu, runtime))

    def roll_back_timing_cache(self, key: str, revision: int) -> TimingCacheView:
        return self._run(calls.roll_back_timing_cache(key, revision))

    def fleet(self) -> FleetView:
        return self._run(calls.fleet())
