"""``trtfarm job``."""

from __future__ import annotations

from shlex import quote
from typing import Annotated

import typer

from trtfarm.cli.follow import Follower, line
from trtfarm.cli.output import print_fields, print_json, print_log, print_table, say, size, stderr
from trtfarm.cli.run import Exit, exits, with_farm
from trtfarm.cli.waiting import about, outlook
from trtfarm.contract.forecast import Forecast
from trtfarm.contract.jobs import JobState
from trtfarm.contract.v1 import CancelRequest, JobView
from trtfarm.errors import InvalidRequestError

app = typer.Typer(help="Jobs: list, show, watch, logs, cancel, prioritize, retry.", no_args_is_help=True)
Json = Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")]
JobId = Annotated[str, typer.Argument(help="The job's id.")]


@app.command("list", epilog="Example: trtfarm job list --state failed")
def list_jobs(
    state: Annotated[list[JobState] | None, typer.Option(help="Only these states.")] = None,
    gpu: Annotated[str | None, typer.Option(help="Only this GPU or capability.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=500)] = 20,
    cursor: Annotated[str | None, typer.Option(help="Go on from a page's `next`.")] = None,
    as_json: Json = False,
) -> None:
    """Lists jobs, newest first."""
    with exits(as_json=as_json):
        page = with_farm(
            lambda farm: farm.jobs(states=tuple(state or ()), gpu=gpu, limit=limit, cursor=cursor)
        )
        if as_json:
            print_json(page.model_dump(mode="json"))
            return
        rows = [
            (job.job_id, job.state, job.target.gpu, job.target.runtime, f"{job.created_at:%Y-%m-%d %H:%M}",
             _result(job))
            for job in page.jobs
        ]  # fmt: skip
        print_table(("job", "state", "gpu", "runtime", "created", "result"), rows, empty="No jobs.")
        if page.next:
            stderr.print(f"More: trtfarm job list --cursor {quote(page.next)}", markup=False)


@app.command(epilog="Example: trtfarm job show 0199e0c2-…")
def show(job_id: JobId, as_json: Json = False) -> None:
    """Shows a job with its attempts."""
    with exits(as_json=as_json):
        job = with_farm(lambda farm: farm.job(job_id))
        if as_json:
            print_json(job.model_dump(mode="json"))
        else:
            _show(job)


@app.command(epilog="Example: trtfarm job watch 0199e0c2-…")
def watch(job_id: JobId, as_json: Json = False) -> None:
    """Follows a job until it ends; on an embedded farm, runs it if it is queued."""
    with exits(as_json=as_json):
        job = with_farm(
            lambda farm: Follower(farm, quiet=as_json).follow([farm.job(job_id)])[job_id],
            builds=True,
        )
        if as_json:
            print_json(job.model_dump(mode="json"))
        else:
            _show(job)
    if job.state is not JobState.SUCCEEDED:
        raise typer.Exit(Exit.JOB_FAILED)


@app.command(epilog="Example: trtfarm job logs 0199e0c2-… | less")
def logs(job_id: JobId, as_json: Json = False) -> None:
    """Prints TensorRT's log of a job's last attempt."""
    with exits(as_json=as_json):
        text = with_farm(lambda farm: farm.log(job_id))
        if as_json:
            print_json({"job_id": job_id, "log": text})
        else:
            print_log(text)


@app.command(
    epilog="Example: trtfarm job cancel 0199e0c2-…\n\nExample: trtfarm job cancel --all-queued --gpu h200"
)
def cancel(
    job_id: Annotated[str | None, typer.Argument(help="The job's id.")] = None,
    all_queued: Annotated[
        bool, typer.Option("--all-queued", help="All jobs of yours that have not begun.")
    ] = False,
    gpu: Annotated[str | None, typer.Option(help="With --all-queued: only this GPU or capability.")] = None,
    everyones: Annotated[
        bool, typer.Option("--everyones", help="Also what others have submitted; needs scope admin.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: Json = False,
) -> None:
    """Cancels a job, or all that wait; a running one ends within seconds.

    What others have submitted as well goes on for them.
    """
    with exits(as_json=as_json):
        if (job_id is None) is not all_queued:
            raise InvalidRequestError("Give a job's id, or --all-queued.")
        if job_id is None:
            _cancel_queued(CancelRequest(gpu=gpu, everyones=everyones), ask=not yes, as_json=as_json)
            return
        job = with_farm(lambda farm: farm.cancel(job_id, everyones=everyones))
        if as_json:
            print_json(job.model_dump(mode="json"))
        elif job.others:
            stderr.print(f"{job_id}: withdrawn; it goes on for {job.others} more", markup=False)
        else:
            stderr.print(
                f"{job_id}: {'cancelled' if job.state.terminal else 'being cancelled'}", markup=False
            )


def _cancel_queued(request: CancelRequest, *, ask: bool, as_json: bool) -> None:
    if ask:
        whose = "everyone's" if request.everyones else "your"
        where = f" for {request.gpu}" if request.gpu else ""
        typer.confirm(f"Cancel all of {whose} queued jobs{where}?", abort=True, err=True)
    done = with_farm(lambda farm: farm.cancel_queued(request))
    if as_json:
        print_json({"cancelled": done.cancelled, "shared": done.shared})
    else:
        shared = f"; {done.shared} go on, as others have submitted them, too" if done.shared else ""
        stderr.print(f"{done.cancelled} jobs cancelled{shared}.", markup=False)


@app.command(epilog="Example: trtfarm job prioritize 0199e0c2-… 10")
def prioritize(
    job_id: JobId,
    priority: Annotated[int, typer.Argument(min=-100, max=100, help="Higher goes first.")],
    as_json: Json = False,
) -> None:
    """Gives a queued job another priority."""
    with exits(as_json=as_json):
        job = with_farm(lambda farm: farm.prioritize(job_id, priority))
        if as_json:
            print_json(job.model_dump(mode="json"))
        else:
            stderr.print(f"{job_id}: priority {job.priority}", markup=False)


@app.command(epilog="Example: trtfarm job retry 0199e0c2-…")
def retry(job_id: JobId, as_json: Json = False) -> None:
    """Submits the build of a failed or cancelled job again."""
    with exits(as_json=as_json):
        submission = with_farm(lambda farm: farm.retry(job_id))
        if as_json:
            print_json(submission.model_dump(mode="json"))
        else:
            stderr.print(
                f"{submission.disposition}: job {submission.job.job_id}. "
                f"Follow it: trtfarm job watch {quote(submission.job.job_id)}",
                markup=False,
            )


def _result(job: JobView) -> str:
    if job.error is not None:
        return job.error.code
    return outlook(job) or (job.plan.digest if job.plan else "")


def _waits(job: JobView) -> str | None:
    if job.state is not JobState.QUEUED:
        return None
    timeless = job.forecast and job.forecast.model_copy(update={"starts": None})
    return outlook(job.model_copy(update={"forecast": timeless})) or None


def _told_by(forecast: Forecast) -> str:
    whose = "model on this target" if forecast.basis == "model" else "target, of other models"
    return f"{forecast.samples} earlier jobs of this {whose}"


def _show(job: JobView) -> None:
    forecast = job.forecast
    print_fields(
        {
            "job": job.job_id,
            "state": job.state,
            "model": job.model,
            "gpu": job.target.gpu,
            "runtime": job.target.runtime,
            "platform": job.target.platform,
            "config": job.config.canonical() or None,
            "profiles": "; ".join(str(profile.root) for profile in job.profiles) or None,
            "created": f"{job.created_at:%Y-%m-%d %H:%M:%S} UTC",
            "priority": job.priority or None,
            "waits": _waits(job),
            "starts": forecast and forecast.starts and f"in about {about(forecast.starts)}",
            "ends": forecast and forecast.ends and f"in about {about(forecast.ends)}",
            "told by": forecast and forecast.basis and _told_by(forecast),
            "stage": line(job) if job.state is JobState.RUNNING else None,
            "plan": job.plan and f"{job.plan.digest} ({size(job.plan.size_bytes)})",
            "build": job.build_seconds and f"{job.build_seconds:.2f} s",
            "error": job.error and f"[{job.error.code}] {job.error.message}",
            "hint": job.error and job.error.hint,
        }
    )
    for attempt in job.attempts or ():
        ended = (
            f"{attempt.outcome} after {attempt.ended_at - attempt.started_at}"
            if attempt.ended_at
            else "running"
        )
        say(f"attempt {attempt.number}  worker {attempt.worker_id}  {ended}")
