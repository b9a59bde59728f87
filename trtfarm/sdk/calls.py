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
from trtfarm.sdk import asked
from trtfarm.sdk.answers import View, parsed, problem, unreachable
from trtfarm.sdk.flow import MOST_ANSWER_BYTES, Flow, call, pause

TRIES = 4
BACKOFF_SECONDS = 0.25
MOST_ARTIFACT_BYTES = 2 * 2**30
_RETRIED = frozenset({502, 503, 504})
Reference = Digest | ModelName
Job = str | JobView | SubmissionView
Plan = Digest | PlanView
OnBytes = Callable[[int], None]


def request(
    method: str, url: str, *, tries: int = TRIES, most_bytes: int = MOST_ANSWER_BYTES, **options: Any
) -> Flow[httpx.Response]:
    """One call, repeated while nobody answers. Raises the error that the farm tells of.

    ``tries``: 1 for a call whose body can be read only once. ``most_bytes``: of the answer.
    """
    for attempt in range(tries):
        last = attempt == tries - 1
        try:
            response = yield from call(method, url, most_bytes, **options)
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
    found = yield from view(ModelView, "GET", f"/v1/models/{reference}")
    if isinstance(reference, Digest):
        asked.same("model", reference, found.digest)
    return found


def has_model(digest: Digest) -> Flow[bool]:
    try:
        yield from model(digest)
    except errors.ModelNotFoundError:
        return False
    return True


def models(*, limit: int = 50, **filters: str | None) -> Flow[ModelPage]:
    return view(ModelPage, "GET", "/v1/models", params={"limit": limit, **_given(filters)})


def names(*, limit: int = 50, **filters: str | None) -> Flow[NamePage]:
    page = yield from view(NamePage, "GET", "/v1/names", params={"limit": limit, **_given(filters)})
    asked.among(page.names, filters)
    return page


def name(reference: ModelName) -> Flow[NameView]:
    found = yield from view(NameView, "GET", f"/v1/names/{reference}")
    asked.same("name", reference, found.reference)
    return found


def tag(model: Reference, reference: ModelName) -> Flow[NameView]:
    found = yield from view(NameView, "PUT", f"/v1/names/{reference}", json={"model": model})
    asked.same("name", reference, found.reference)
    if isinstance(model, Digest):
        asked.same(f"{reference} for model", model, found.model)
    return found


def untag(reference: ModelName) -> Flow[None]:
    yield from request("DELETE", f"/v1/names/{reference}")


# --- jobs ---


def submit(submission: JobRequest) -> Flow[SubmissionView]:
    body = submission.model_dump(mode="json", exclude_defaults=True)
    headers = {"Idempotency-Key": uuid4().hex}
    found = yield from view(SubmissionView, "POST", "/v1/jobs", json=body, headers=headers)
    asked.submission(submission, found)
    return found


def job(which: Job) -> Flow[JobView]:
    return _job(which, "GET", "")


def jobs(*, states: tuple[JobState, ...] = (), limit: int = 50, **filters: str | None) -> Flow[JobPage]:
    params = {"state": [state.value for state in states], "limit": limit, **_given(filters)}
    page = yield from view(JobPage, "GET", "/v1/jobs", params=params)
    asked.among(page.jobs, filters)
    return page


def cancel(which: Job, *, everyones: bool = False) -> Flow[CancelledJobView]:
    params = {"everyones": True} if everyones else None
    found = yield from view(CancelledJobView, "POST", f"/v1/jobs/{job_id(which)}/cancel", params=params)
    asked.job(which, found)
    return found


def cancel_queued(which: CancelRequest) -> Flow[CancelledView]:
    body = which.model_dump(mode="json", exclude_defaults=True)
    cancelled, shared, more = 0, 0, True
    while more:
        answer = yield from view(CancelledView, "POST", "/v1/jobs/cancel", json=body)
        cancelled, shared, more = cancelled + answer.cancelled, shared + answer.shared, answer.more
    return CancelledView(cancelled=cancelled, shared=shared, more=False)


def prioritize(which: Job, priority: int) -> Flow[JobView]:
    return _job(which, "POST", "/prioritize", json={"priority": priority})


def retry(which: Job) -> Flow[SubmissionView]:
    found = yield from view(SubmissionView, "POST", f"/v1/jobs/{job_id(which)}/retry")
    known = which.job if isinstance(which, SubmissionView) else which
    if isinstance(known, JobView):  # the new job has the old one's spec
        known = known.model_copy(update={"job_id": found.job.job_id})
    asked.job(found.job.job_id if isinstance(known, str) else known, found.job)
    return found


def _job(which: Job, method: str, verb: str, **options: Any) -> Flow[JobView]:
    found = yield from view(JobView, method, f"/v1/jobs/{job_id(which)}{verb}", **options)
    asked.job(which, found)
    return found


def log(which: Job) -> Flow[str]:
    url = f"/v1/jobs/{job_id(which)}/log"
    return (yield from request("GET", url, most_bytes=MOST_ARTIFACT_BYTES)).text


# --- plans ---


def plan(digest: Digest) -> Flow[PlanView]:
    found = yield from view(PlanView, "GET", f"/v1/plans/{digest}")
    asked.same("plan", digest, found.digest)
    return found


def plans(*, limit: int = 50, **filters: str | None) -> Flow[PlanPage]:
    page = yield from view(PlanPage, "GET", "/v1/plans", params={"limit": limit, **_given(filters)})
    asked.among(page.plans, filters)
    return page


def resolve(question: ResolveRequest) -> Flow[ResolveView]:
    # Fields that were set are the question: null asks for TensorRT's default.
    body = question.model_dump(mode="json", exclude_unset=True)
    found = yield from view(ResolveView, "POST", "/v1/plans/resolve", json=body)
    asked.resolution(question, found)
    return found


def artifact(digest: Digest) -> Flow[bytes]:
    url = f"/v1/artifacts/{digest}"
    data = (yield from request("GET", url, most_bytes=MOST_ARTIFACT_BYTES)).content
    if (got := Digest.of_bytes(data)) != digest:
        raise errors.BlobCorruptError(f"Other bytes than {digest} arrived ({got}).")
    return data


# --- what GPUs teach ---


def benchmarks(*, limit: int = 50, **filters: str | None) -> Flow[BenchmarkPage]:
    page = yield from view(BenchmarkPage, "GET", "/v1/benchmarks", params={"limit": limit, **_given(filters)})
    asked.among(page.benchmarks, filters)
    return page


def timing_caches(key: str | None = None) -> Flow[tuple[TimingCacheView, ...]]:
    url = f"/v1/timing-caches/{key}" if key else "/v1/timing-caches"
    found = (yield from view(TimingCacheList, "GET", url)).timing_caches
    for each in found:
        asked.same("timing cache", key or "", each.key[: len(key or "")])
    return found


def timing_cache(key: str, revision: int | None = None) -> Flow[bytes]:
    known = yield from timing_caches(key)
    chosen = next((each for each in known if revision in {None, each.revision}), None)
    if chosen is None:
        raise errors.NotFoundError(f"Timing cache {key} has no revision {revision}.")
    url = f"/v1/timing-caches/{chosen.key}/content"
    params = {"revision": chosen.revision}
    data = (yield from request("GET", url, params=params, most_bytes=MOST_ARTIFACT_BYTES)).content
    if (got := Digest.of_bytes(data)) != chosen.digest:
        raise errors.BlobCorruptError(f"Other bytes than {chosen.digest} arrived ({got}).")
    return data


def roll_back_timing_cache(key: str, revision: int) -> Flow[TimingCacheView]:
    url = f"/v1/timing-caches/{key}/rollback"
    found = yield from view(TimingCacheView, "POST", url, params={"revision": revision})
    asked.same("timing cache", key, found.key[: len(key)])
    return found


def fleet() -> Flow[FleetView]:
    return view(FleetView, "GET", "/v1/fleet")


def _given(filters: dict[str, str | None]) -> dict[str, str]:
    return {name: value for name, value in filters.items() if value is not None}
