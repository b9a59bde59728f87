"""``trtfarm job``."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from trtfarm.cli.follow import Follower, line
from trtfarm.cli.output import print_fields, print_json, print_table, size, stderr
from trtfarm.cli.run import Exit, exits, with_farm
from trtfarm.contract.jobs import JobState
from trtfarm.contract.v1 import JobView

app = typer.Typer(help="Jobs: list, show, watch, logs, cancel, retry.", no_args_is_help=True)
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
            lambda farm: farm.client.jobs(states=tuple(state or ()), gpu=gpu, limit=limit, cursor=cursor)
        )
        if as_json:
            print_json(page.model_dump(mode="json"))
            return
        rows = [
            (job.job_id, job.state, job.target.gpu, job.target.runtime, f"{job.created_at:%Y-%m-%d %H:%M}",
             job.error.code if job.error else (job.plan and job.plan.digest) or "")
            for job in page.jobs
        ]  # fmt: skip
        print_table(("job", "state", "gpu", "runtime", "created", "result"), rows, empty="No jobs.")
        if page.next:
            stderr.print(f"More: trtfarm job list --cursor {page.next}", markup=False)


@app.command(epilog="Example: trtfarm job show 0199e0c2-…")
def show(job_id: JobId, as_json: Json = False) -> None:
    """Shows a job with its attempts."""
    with exits(as_json=as_json):
        job = with_farm(lambda farm: farm.client.job(job_id))
        if as_json:
            print_json(job.model_dump(mode="json"))
        else:
            _show(job)


@app.command(epilog="Example: trtfarm job watch 0199e0c2-…")
def watch(job_id: JobId, as_json: Json = False) -> None:
    """Follows a job until it ends; on an embedded farm, runs it if it is queued."""
    with exits(as_json=as_json):
        job = with_farm(
            lambda farm: Follower(farm.client, quiet=as_json).follow([farm.client.job(job_id)])[job_id],
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
        text = with_farm(lambda farm: farm.client.log(job_id))
        if as_json:
            print_json({"job_id": job_id, "log": text})
        else:
            sys.stdout.write(text)


@app.command(epilog="Example: trtfarm job cancel 0199e0c2-…")
def cancel(job_id: JobId, as_json: Json = False) -> None:
    """Cancels a job; a running one ends within seconds."""
    with exits(as_json=as_json):
        job = with_farm(lambda farm: farm.client.cancel(job_id))
        if as_json:
            print_json(job.model_dump(mode="json"))
        else:
            stderr.print(
                f"{job_id}: {'cancelled' if job.state.terminal else 'being cancelled'}", markup=False
            )


@app.command(epilog="Example: trtfarm job retry 0199e0c2-…")
def retry(job_id: JobId, as_json: Json = False) -> None:
    """Submits the build of a failed or cancelled job again."""
    with exits(as_json=as_json):
        submission = with_farm(lambda farm: farm.client.retry(job_id))
        if as_json:
            print_json(submission.model_dump(mode="json"))
        else:
            stderr.print(
                f"{submission.disposition}: job {submission.job.job_id}. "
                f"Follow it: trtfarm job watch {submission.job.job_id}",
                markup=False,
            )


def _show(job: JobView) -> None:
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
            "before it": job.queue_position,
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
        sys.stdout.write(f"attempt {attempt.number}  worker {attempt.worker_id}  {ended}\n")
