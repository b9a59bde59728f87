"""Jobs: submit, follow, cancel, retry."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated

from anyio import to_thread
from fastapi import APIRouter, Depends, Header, Query, Request, Response
from fastapi.sse import EventSourceResponse, ServerSentEvent

from trtfarm.contract.jobs import JobState, Scope
from trtfarm.contract.names import ModelReference
from trtfarm.contract.v1 import (
    CancelledJobView,
    CancelledView,
    CancelRequest,
    JobEvent,
    JobPage,
    JobRequest,
    JobView,
    PriorityRequest,
    SubmissionView,
)
from trtfarm.errors import JobNotFinishedError, NotFoundError
from trtfarm.failpoints import reach
from trtfarm_api.auth import Submitter, scoped
from trtfarm_api.documents import DocumentRoute
from trtfarm_api.downloads import artifact_response
from trtfarm_api.farm import Farm, FarmDep
from trtfarm_api.following import FollowersDep
from trtfarm_api.paging import Cursor, Limit, next_cursor
from trtfarm_api.services import SubmissionsDep
from trtfarm_api.services.fitting import fitting
from trtfarm_db.repositories import events
from trtfarm_db.repositories.cancelling import CancelRepository
from trtfarm_db.repositories.events import Pulse
from trtfarm_db.repositories.jobs import JobRepository
from trtfarm_db.repositories.names import NameRepository

MAX_IDS = 100
router = APIRouter(prefix="/v1/jobs", tags=["jobs"], route_class=DocumentRoute)
_CANCELLED_AT_ONCE = 200
IdempotencyKey = Annotated[str | None, Header(max_length=255, pattern=r"^[\x21-\x7e]+$")]


@router.post("", status_code=201)
async def submit_job(
    request: JobRequest,
    principal: Submitter,
    submissions: SubmissionsDep,
    response: Response,
    idempotency_key: IdempotencyKey = None,
) -> SubmissionView:
    """201: a job was queued. 200: it joined one in flight, or a finished plan is reused."""
    # A coroutine: FastAPI would go to a thread once more, to check the answer of a plain function.
    submission = await to_thread.run_sync(submissions.submit, request, principal.name, idempotency_key)
    return _answer(submission, response)


@router.get("", dependencies=[scoped(Scope.READ)])
def list_jobs(
    farm: FarmDep,
    id: Annotated[list[str] | None, Query(max_length=MAX_IDS)] = None,  # noqa: A002 - its name in the URL
    state: Annotated[list[JobState] | None, Query()] = None,
    model: ModelReference | None = None,
    gpu: Annotated[str | None, Query(max_length=80)] = None,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> JobPage:
    """Newest first. `id` may be given up to 100 times. `gpu`: jobs whose plans it can use."""
    with farm.database.transaction() as connection:
        digest = model and NameRepository(connection).digest(model)
        jobs = JobRepository(connection).page(
            ids=id,
            states=state or (),
            model=digest,
            gpus=fitting(farm.catalogue, gpu),
            before=cursor,
            limit=limit + 1,
        )
    shown = farm.forecasts.add_to_all(jobs[:limit])
    return JobPage(jobs=tuple(shown), next=next_cursor(jobs, limit))


@router.get("/{job_id}", dependencies=[scoped(Scope.READ)])
def get_job(job_id: str, farm: FarmDep) -> JobView:
    """With its attempts and, while it is live, its position and what it may expect."""
    return farm.forecasts.add_to(_job(farm, job_id, full=True))


@router.post("/{job_id}/cancel")
def cancel_job(
    job_id: str,
    principal: Submitter,
    farm: FarmDep,
    everyones: Annotated[bool, Query(description="Though others want it; needs scope admin.")] = False,
) -> CancelledJobView:
    """Withdraws the caller's submission of a job, which ends if nobody else has submitted it.

    A queued job ends here; a running one when its worker hears of it, within seconds.
    """
    if everyones:
        principal.require(Scope.ADMIN)
    with farm.database.transaction() as connection:
        jobs, others = JobRepository(connection), 0
        if everyones:
            job = jobs.cancel(job_id)
        else:
            job, others = jobs.withdraw(job_id, principal.name)
        reach("api.before_cancel_commit")
    return CancelledJobView.model_validate({**dict(job), "others": others})


@router.post("/cancel")
def cancel_queued_jobs(request: CancelRequest, principal: Submitter, farm: FarmDep) -> CancelledView:
    """Withdraws the caller from queued jobs, oldest first, some hundreds at a time."""
    if request.everyones:
        principal.require(Scope.ADMIN)
    whose = None if request.everyones else principal.name
    with farm.database.transaction() as connection:
        done = CancelRepository(connection).queued(
            principal=whose, model=request.model, gpu=request.gpu, limit=_CANCELLED_AT_ONCE
        )
    ended, shared = len(done.ended), len(done.shared)
    return CancelledView(cancelled=ended, shared=shared, more=ended + shared == _CANCELLED_AT_ONCE)


@router.post("/{job_id}/prioritize")
def prioritize_job(job_id: str, request: PriorityRequest, principal: Submitter, farm: FarmDep) -> JobView:
    """Another priority for a job of the caller that waits; with scope admin, for anyone's."""
    whose = None if principal.scope.includes(Scope.ADMIN) else principal.name
    with farm.database.transaction() as connection:
        return JobRepository(connection).prioritize(job_id, request.priority, whose)


@router.post("/{job_id}/retry", status_code=201)
def retry_job(
    job_id: str, principal: Submitter, submissions: SubmissionsDep, response: Response
) -> SubmissionView:
    """A new job for the spec of one that failed or was cancelled."""
    return _answer(submissions.retry(job_id, principal.name), response)


@router.get(
    "/{job_id}/log",
    dependencies=[scoped(Scope.READ)],
    response_class=Response,
    responses={200: {"content": {"text/plain": {}}}},
)
def get_job_log(job_id: str, request: Request, farm: FarmDep) -> Response:
    """TensorRT's log of the last attempt that ended, as text."""
    job = _job(farm, job_id, full=True)
    logs = [attempt.log for attempt in job.attempts or () if attempt.log is not None]
    if not logs:
        if job.state.terminal:
            raise NotFoundError(f"Job {job_id} left no log.")
        raise JobNotFinishedError(f"Job {job_id} is {job.state}; its log comes with the end of an attempt.")
    return artifact_response(farm, request, logs[-1], media_type="text/plain; charset=utf-8")


def _exists(job_id: str, farm: FarmDep) -> None:
    """Before the stream starts, an error still can be an answer."""
    _job(farm, job_id)


@router.get(
    "/{job_id}/events",
    dependencies=[scoped(Scope.READ), Depends(_exists)],
    response_class=EventSourceResponse,
)
async def follow_job(
    job_id: str,
    farm: FarmDep,
    followers: FollowersDep,
    last_event_id: Annotated[int, Header(ge=0, lt=2**63)] = 0,
) -> AsyncIterator[ServerSentEvent]:
    """Events of a job as they happen, from `Last-Event-ID` on; `progress` and `forecast` between them.

    Ends with the job. The data of every event is the job as it then stands.
    """
    shown, pulse = None, None
    with followers.follow(job_id) as follower:
        while not followers.ended:
            look = await to_thread.run_sync(_look, farm, job_id, last_event_id, pulse)
            if look is not None:
                pulse, job, news = look
                for event in news:
                    yield ServerSentEvent(data=job, event=event.kind, id=str(event.id))
                    last_event_id = event.id
                    follower.changed()
                if not news and job.progress is not None and job.progress != shown:
                    job = await to_thread.run_sync(farm.forecasts.add_to, job)
                    yield ServerSentEvent(data=job, event="progress")
                if job.state.terminal:
                    return
                shown = job.progress
            if follower.forecast_due():
                told = await to_thread.run_sync(farm.forecasts.add_to, job)
                if told.forecast is not None and told != job:
                    yield ServerSentEvent(data=told, event="forecast")
                    job = told
            await follower.wait()


def _look(
    farm: Farm, job_id: str, after: int, seen: Pulse | None
) -> tuple[Pulse, JobView, list[JobEvent]] | None:
    """None if nothing has changed since ``seen``: most looks find that, so they must be cheap."""
    with farm.database.transaction() as connection:
        pulse = events.pulse(connection, job_id)
        if pulse == seen:
            return None
        news = events.after(connection, job_id, after)
        job = JobRepository(connection).get(job_id, full=True)
        if job.state.terminal:  # perhaps since the line above; now all its events are there
            news = events.after(connection, job_id, after)
        return pulse, job, news


def _job(farm: Farm, job_id: str, *, full: bool = False) -> JobView:
    with farm.database.transaction() as connection:
        return JobRepository(connection).get(job_id, full=full)


def _answer(submission: SubmissionView, response: Response) -> SubmissionView:
    if submission.disposition != "created":
        response.status_code = 200
    response.headers["Location"] = f"/v1/jobs/{submission.job.job_id}"
    return submission
