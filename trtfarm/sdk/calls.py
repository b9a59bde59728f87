"""Every call of the HTTP API but transfers and following, as a flow."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import uuid4

import httpx

from trtfarm import errors
from trtfarm.contract.digest import Digest
from trtfarm.contract.jobs import JobState
from trtfarm.contract.names import ModelName, ModelPage, NamePage, NameView
from trtfarm.contract.resolve import ResolveRequest, ResolveView
from trtfarm.contract.timing_cache import TimingCacheView
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
    TimingCacheList,
)
from trtfarm.sdk.answers import View, parsed, problem, unreachable
from trtfarm.sdk.flow import Flow, call, pause

TRIES = 4
BACKOFF_SECONDS = 0.25
_RETRIED = frozenset({502, 503, 504})
Reference = Digest | ModelName
Job = str | JobView | SubmissionView
Plan = Digest | PlanView
OnBytes = Callable[[int], None]


def request(method: str, url: str, *, tries: int = TRIES, **options: Any) -> Flow[httpx.Response]:
    """One call, repeated while nobody answers. Raises the error that the farm tells of.

    ``tries``: 1 for a call whose body can be read only once.
    """
    for attempt in range(tries):
        last = attempt == tries - 1
        try:
            response = yield from call(method, url, **options)
        except httpx.TransportError as error:
            if last or isinstance(error, httpx.ConnectError):
                raise unreachable(error) from error
        else:
            if response.is_success:
                return response
            if last or response.status_code not in _RETRIED:
                raise problem(response)
        yield from pause(BACKOFF_SECONDS * 2**attempt)
    raise AssertionError  # the last round returns or raises


def view(kind: type[View], method: str, url: str, **options: Any) -> Flow[View]:
    return parsed(kind, (yield from request(method, url, **options)))


def job_id(job: Job) -> str:
    if isinstance(job, SubmissionView):
        job = job.job
    return job if isinstance(job, str) else job.job_id


# --- models ---


def model(reference: Reference) -> Flow[ModelView]:
    return view(ModelView, "GET", f"/v1/models/{reference}")


def has_model(digest: Digest) -> Flow[bool]:
    try:
        yield from model(digest)
    except errors.ModelNotFoundError:
        return False
    return True


def models(*, limit: int = 50, **filters: str | None) -> Flow[ModelPage]:
    return view(ModelPage, "GET", "/v1/models", params={"limit": limit, **_given(filters)})


def names(*, limit: int = 50, **filters: str | None) -> Flow[NamePage]:
    return view(NamePage, "GET", "/v1/names", params={"limit": limit, **_given(filters)})


def name(reference: ModelName) -> Flow[NameView]:
    return view(NameView, "GET", f"/v1/names/{reference}")


def tag(model: Reference, reference: ModelName) -> Flow[NameView]:
    return view(NameView, "PUT", f"/v1/names/{reference}", json={"model": model})


def untag(reference: ModelName) -> Flow[None]:
    yield from request("DELETE", f"/v1/names/{reference}")


# --- jobs ---


def submit(submission: JobRequest) -> Flow[SubmissionView]:
    body = submission.model_dump(mode="json", exclude_defaults=True)
    headers = {"Idempotency-Key": uuid4().hex}
    return view(SubmissionView, "POST", "/v1/jobs", json=body, headers=headers)


def job(which: Job) -> Flow[JobView]:
    return view(JobView, "GET", f"/v1/jobs/{job_id(which)}")


def jobs(*, states: tuple[JobState, ...] = (), limit: int = 50, **filters: str | None) -> Flow[JobPage]:
    params = {"state": [state.value for state in states], "limit": limit, **_given(filters)}
    return view(JobPage, "GET", "/v1/jobs", params=params)


def cancel(which: Job, *, everyones: bool = False) -> Flow[CancelledJobView]:
    params = {"everyones": True} if everyones else None
    return view(CancelledJobView, "POST", f"/v1/jobs/{job_id(which)}/cancel", params=params)


def cancel_queued(which: CancelRequest) -> Flow[CancelledView]:
    body = which.model_dump(mode="json", exclude_defaults=True)
    cancelled, shared, more = 0, 0, True
    while more:
        answer = yield from view(CancelledView, "POST", "/v1/jobs/cancel", json=body)
        cancelled, shared, more = cancelled + answer.cancelled, shared + answer.shared, answer.more
    return CancelledView(cancelled=cancelled, shared=shared, more=False)


def prioritize(which: Job, priority: int) -> Flow[JobView]:
    return view(JobView, "POST", f"/v1/jobs/{job_id(which)}/prioritize", json={"priority": priority})


def retry(which: Job) -> Flow[SubmissionView]:
    return view(SubmissionView, "POST", f"/v1/jobs/{job_id(which)}/retry")


def log(which: Job) -> Flow[str]:
    return (yield from request("GET", f"/v1/jobs/{job_id(which)}/log")).text


# --- plans ---


def plan(digest: Digest) -> Flow[PlanView]:
    return view(PlanView, "GET", f"/v1/plans/{digest}")


def plans(*, limit: int = 50, **filters: str | None) -> Flow[PlanPage]:
    return view(PlanPage, "GET", "/v1/plans", params={"limit": limit, **_given(filters)})


def resolve(question: ResolveRequest) -> Flow[ResolveView]:
    # Fields that were set are the question: null asks for TensorRT's default.
    body = question.model_dump(mode="json", exclude_unset=True)
    return view(ResolveView, "POST", "/v1/plans/resolve", json=body)


def artifact(digest: Digest) -> Flow[bytes]:
    data = (yield from request("GET", f"/v1/artifacts/{digest}")).content
    if Digest.of_bytes(data) != digest:
        raise errors.BlobCorruptError(f"Other bytes than {digest} arrived.")
    return data


# --- what GPUs teach ---


def benchmarks(*, limit: int = 50, **filters: str | None) -> Flow[BenchmarkPage]:
    return view(BenchmarkPage, "GET", "/v1/benchmarks", params={"limit": limit, **_given(filters)})


def timing_caches(key: str | None = None) -> Flow[tuple[TimingCacheView, ...]]:
    url = f"/v1/timing-caches/{key}" if key else "/v1/timing-caches"
    return (yield from view(TimingCacheList, "GET", url)).timing_caches


def timing_cache(key: str, revision: int | None = None) -> Flow[bytes]:
    params = {"revision": revision} if revision else {}
    response = yield from request("GET", f"/v1/timing-caches/{key}/content", params=params)
    if f'"{Digest.of_bytes(response.content).hex}"' != response.headers["ETag"]:
        raise errors.BlobCorruptError("Other bytes arrived than the farm sent.")
    return response.content


def roll_back_timing_cache(key: str, revision: int) -> Flow[TimingCacheView]:
    url = f"/v1/timing-caches/{key}/rollback"
    return view(TimingCacheView, "POST", url, params={"revision": revision})


def fleet() -> Flow[FleetView]:
    return view(FleetView, "GET", "/v1/fleet")


def _given(filters: dict[str, str | None]) -> dict[str, str]:
    return {name: value for name, value in filters.items() if value is not None}
