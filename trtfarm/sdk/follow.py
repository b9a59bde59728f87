"""Following jobs."""

from __future__ import annotations

from collections.abc import Iterable

import httpx

from trtfarm import errors
from trtfarm.contract.v1 import JobPage, JobView
from trtfarm.sdk import asked
from trtfarm.sdk.answers import parsed, problem, stranger
from trtfarm.sdk.away import Away
from trtfarm.sdk.calls import BACKOFF_SECONDS, Job, job_id, view
from trtfarm.sdk.flow import Emit, Flow, Opened, Stream, line, opened, pause

_TIMEOUT = httpx.Timeout(60.0)
_BATCH = 100
_SLOWEST_LOOK_SECONDS = 2.0


def follow(which: Job) -> Stream[JobView, JobView]:
    """The job as it changes, until it has ended; returns it. Survives a restart of the farm."""
    known: Job = which
    last_event, away = "0", Away()
    while True:
        try:
            stream = yield from _events(job_id(which), last_event)
            message = _Message()
            while (text := (yield from line(stream))) is not None:
                if message.ends_with(text):
                    job = parsed(JobView, stream.response, message.data)
                    asked.job(known, job)
                    known = job
                    last_event = message.id or last_event
                    away.over()
                    message = _Message()
                    yield Emit(job)
                    if job.state.terminal:
                        return job
            yield from pause(BACKOFF_SECONDS)
        except (httpx.TransportError, errors.UnavailableError) as error:
            yield from away.bear(error)


def _events(which: str, last_event: str) -> Flow[Opened]:
    headers = {"Last-Event-ID": last_event, "Accept": "text/event-stream"}
    url = f"/v1/jobs/{which}/events"
    stream = yield from opened("GET", url, headers=headers, timeout=_TIMEOUT, lines=True)
    if stream.response.is_error:
        raise problem(stream.response)
    if not stream.response.headers.get("content-type", "").startswith("text/event-stream"):
        raise stranger(stream.response)
    return stream


class _Message:
    """One server-sent event, line by line. Progress has no id."""

    def __init__(self) -> None:
        self.id = self.data = ""

    def ends_with(self, text: str) -> bool:
        field, _, value = text.partition(":")
        if field == "id":
            self.id = value.strip()
        elif field == "data":
            self.data = value
        return not text and bool(self.data)  # only now is its id known


def as_completed(which: Iterable[Job]) -> Stream[JobView, None]:
    """Each job once, as it ends. One call looks at many; the pauses grow while nothing happens."""
    waiting = {job_id(each): each for each in which}
    seconds = BACKOFF_SECONDS
    away = Away()
    while waiting:
        try:
            ended = yield from _ended(waiting)
        except errors.UnavailableError as error:
            yield from away.bear(error)
            continue
        away.over()
        for job in ended:
            del waiting[job.job_id]
            yield Emit(job)
        if waiting:
            seconds = BACKOFF_SECONDS if ended else min(2 * seconds, _SLOWEST_LOOK_SECONDS)
            yield from pause(seconds)


def _ended(waiting: dict[str, Job]) -> Flow[list[JobView]]:
    """Those that have, in the order in which they did."""
    found: list[JobView] = []
    for start in range(0, len(waiting), _BATCH):
        batch = list(waiting)[start : start + _BATCH]
        params = {"id": batch, "limit": _BATCH}
        page = yield from view(JobPage, "GET", "/v1/jobs", params=params)
        if missing := set(batch) - {job.job_id for job in page.jobs}:
            raise errors.NotFoundError(f"There is no job {missing.pop()}.")
        asked.same("jobs", ", ".join(sorted(batch)), ", ".join(sorted(job.job_id for job in page.jobs)))
        for job in page.jobs:
            asked.job(waiting[job.job_id], job)
        found += (job for job in page.jobs if job.state.terminal)
    return sorted(found, key=lambda job: job.finished_at or job.created_at)
