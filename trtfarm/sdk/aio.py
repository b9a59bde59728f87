"""A client of the HTTP API, on an event loop."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
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
from trtfarm.sdk.campaigns import AsyncCampaigns
from trtfarm.sdk.export import Models, TritonOptions
from trtfarm.sdk.orders import AsyncOrders
from trtfarm.sdk.requests import BuildOptions
from trtfarm.sdk.running import AsyncRunner
from trtfarm.sdk.transfer import Model


class AsyncFarmClient:
    """The methods of ``FarmClient``, for asyncio and trio. Disks and hashing do not hold up the loop.

    ``on_bytes`` is called from another thread.
    """

    def __init__(
        self, url: str, api_key: str | None = None, transport: httpx.AsyncBaseTransport | None = None
    ) -> None:
        self.url = url
        self._http = httpx.AsyncClient(**connection.options(url, api_key), transport=transport)
        self._runner = AsyncRunner(self._http)
        self._run = self._runner.run
        self.campaigns = AsyncCampaigns(self._runner)
        self.orders = AsyncOrders(self._runner)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        await self._http.aclose()

    # --- models ---

    async def upload(self, model: Model, on_bytes: OnBytes | None = None) -> Digest:
        return await self._run(transfer.upload(model, on_bytes))

    async def upload_model(
        self, path: Path, manifest: ModelManifest, on_bytes: OnBytes | None = None
    ) -> Digest:
        return await self._run(transfer.upload_model(path, manifest, on_bytes))

    async def upload_input(self, path: Path, on_bytes: OnBytes | None = None) -> Digest:
        return await self._run(transfer.upload_input(path, on_bytes))

    async def has_model(self, digest: Digest) -> bool:
        return await self._run(calls.has_model(digest))

    async def model(self, reference: Reference) -> ModelView:
        return await self._run(calls.model(reference))

    async def models(self, *, limit: int = 50, **filters: str | None) -> ModelPage:
        return await self._run(calls.models(limit=limit, **filters))

    async def names(self, *, limit: int = 50, **filters: str | None) -> NamePage:
        return await self._run(calls.names(limit=limit, **filters))

    async def name(self, reference: ModelName) -> NameView:
        return await self._run(calls.name(reference))

    async def tag(self, model: Reference, reference: ModelName) -> NameView:
        return await self._run(calls.tag(model, reference))

    async def untag(self, reference: ModelName) -> None:
        return await self._run(calls.untag(reference))

    # --- jobs ---

    async def build(self, model: Model, gpu: str, **options: Unpack[BuildOptions]) -> SubmissionView:
        return await self._run(transfer.build(model, gpu, options))

    async def benchmark(
        self, plan: Plan, gpu: str | None = None, options: BenchmarkOptions | None = None
    ) -> SubmissionView:
        return await self.submit(requests.benchmark(plan, gpu, options))

    async def submit(self, request: JobRequest) -> SubmissionView:
        return await self._run(calls.submit(request))

    async def job(self, job: Job) -> JobView:
        return await self._run(calls.job(job))

    async def jobs(
        self, *, states: tuple[JobState, ...] = (), limit: int = 50, **filters: str | None
    ) -> JobPage:
        return await self._run(calls.jobs(states=states, limit=limit, **filters))

    def follow(self, job: Job) -> AsyncIterator[JobView]:
        return self._runner.each(follow.follow(job))

    async def wait(self, job: Job) -> JobView:
        return await self._run(follow.follow(job))

    def as_completed(self, jobs: Iterable[Job]) -> AsyncIterator[JobView]:
        return self._runner.each(follow.as_completed(jobs))

    async def cancel(self, job: Job, *, everyones: bool = False) -> CancelledJobView:
        """Withdraws this caller's submission; the job ends if nobody else has submitted it.

        ``everyones``: it ends whoever else waits for it; needs scope admin.
        """
        return await self._run(calls.cancel(job, everyones=everyones))

    async def cancel_queued(self, request: CancelRequest) -> CancelledView:
        """As ``cancel``, for queued jobs of this caller, or of everyone."""
        return await self._run(calls.cancel_queued(request))

    async def prioritize(self, job: Job, priority: int) -> JobView:
        """Another priority for a job that waits."""
        return await self._run(calls.prioritize(job, priority))

    async def retry(self, job: Job) -> SubmissionView:
        return await self._run(calls.retry(job))

    async def log(self, job: Job) -> str:
        return await self._run(calls.log(job))

    # --- plans ---

    async def plan(self, digest: Digest) -> PlanView:
        return await self._run(calls.plan(digest))

    async def plans(self, *, limit: int = 50, **filters: str | None) -> PlanPage:
        return await self._run(calls.plans(limit=limit, **filters))

    async def resolve(self, question: ResolveRequest) -> ResolveView:
        return await self._run(calls.resolve(question))

    async def pull(self, plan: Plan, destination: PathLike, on_bytes: OnBytes | None = None) -> Path:
        return await self._run(transfer.pull(plan, destination, on_bytes))

    async def export_triton(
        self, models: Models, destination: PathLike, **options: Unpack[TritonOptions]
    ) -> tuple[TritonModel, ...]:
        return await self._run(export.triton(models, destination, **options))

    async def artifact(self, digest: Digest) -> bytes:
        return await self._run(calls.artifact(digest))

    # --- what GPUs teach ---

    async def benchmarks(self, *, limit: int = 50, **filters: str | None) -> BenchmarkPage:
        return await self._run(calls.benchmarks(limit=limit, **filters))

    async def timing_caches(self, key: str | None = None) -> tuple[TimingCacheView, ...]:
        return await self._run(calls.timing_caches(key))

    async def timing_cache(self, key: str, revision: int | None = None) -> bytes:
        return await self._run(calls.timing_cache(key, revision))

    async def import_timing_cache(self, path: Path, gpu: str, runtime: str | None = None) -> TimingCacheView:
        return await self._run(transfer.import_timing_cache(path, gpu, runtime))

    async def roll_back_timing_cache(self, key: str, revision: int) -> TimingCacheView:
        return await self._run(calls.roll_back_timing_cache(key, revision))

    async def fleet(self) -> FleetView:
        return await self._run(calls.fleet())
