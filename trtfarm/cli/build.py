"""``trtfarm build``."""

from __future__ import annotations

import os
from pathlib import Path
from shlex import quote
from typing import Annotated, Any, TypeVar

import typer
from pydantic import ValidationError

from trtfarm.cli.follow import Follower
from trtfarm.cli.measure import measure, print_benchmark
from trtfarm.cli.model_source import find_model, model_source, stem
from trtfarm.cli.output import print_json, print_table, size, stderr
from trtfarm.cli.run import Exit, exits, with_farm
from trtfarm.cli.trtexec_command import META_KEY
from trtfarm.compose.farm import Farm
from trtfarm.contract.benchmark import BenchmarkOptions
from trtfarm.contract.jobs import JobState
from trtfarm.contract.names import ModelName
from trtfarm.contract.trtexec import TrtexecOptions, parse_build_options
from trtfarm.contract.v1 import DEFAULT_TIMEOUT_SECONDS, JobRequest, JobView, SubmissionView, TargetRequest
from trtfarm.contract.value import Value
from trtfarm.errors import InvalidRequestError, LocalFileError, OptionUnsupportedError
from trtfarm.files import target_of

T = TypeVar("T", bound=Value)
EPILOG = "Example: trtfarm build model.onnx --gpu rtx-4090 --gpu cc-8.6 -o plans/"


def build(
    context: typer.Context,
    model: Annotated[
        str,
        typer.Argument(
            help="The ONNX file, external data is found beside it; or a model of the farm: name:tag, digest."
        ),
    ],
    gpu: Annotated[
        list[str], typer.Option(help="A product (rtx-4090) or a capability (cc-8.9); repeat for several.")
    ],
    runtime: Annotated[
        str | None, typer.Option(help="tensorrt or tensorrt-rtx, with a version if it matters.")
    ] = None,
    output: Annotated[
        str | None,
        typer.Option("-o", "--output", help="Where to write the plan; a folder for several targets."),
    ] = None,
    priority: Annotated[int, typer.Option(min=-100, max=100, help="Higher goes first.")] = 0,
    timeout: Annotated[float, typer.Option(help="Seconds after which a build is given up.")] = (
        DEFAULT_TIMEOUT_SECONDS
    ),
    wait_for_worker: Annotated[
        bool, typer.Option("--wait-for-worker", help="Accept a target that no worker serves yet.")
    ] = False,
    detach: Annotated[bool, typer.Option("--detach", help="Submit and return at once.")] = False,
    tag: Annotated[
        list[str] | None,
        typer.Option("--tag", help="Name the model, as detector:prod, before it is built; may be repeated."),
    ] = None,
    benchmark: Annotated[
        bool, typer.Option("--benchmark", help="Measure every plan on its GPU once it is built.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")] = False,
) -> None:
    """Builds plans of a model, or fetches those that are built already."""
    with exits(as_json=as_json):
        options = parse_build_options(context.meta[META_KEY])
        destination = _destination(options, output)
        source, names = model_source(model), [ModelName(name) for name in tag or ()]
        targets = [valid(TargetRequest, gpu=name, runtime=runtime) for name in dict.fromkeys(gpu)]
        _check_destination(destination, many=len(targets) > 1)

        def command(farm: Farm) -> list[JobView]:
            digest = find_model(farm, source, quiet=as_json)
            for name in names:
                farm.tag(digest, name)
            requests = [
                valid(
                    JobRequest,
                    model=digest,
                    target=target,
                    config=options.config,
                    profiles=options.profiles,
                    priority=priority,
                    timeout_seconds=timeout,
                    wait_for_worker=wait_for_worker,
                )
                for target in targets
            ]
            submissions = [farm.submit(request) for request in requests]
            jobs = {each.job.job_id: each.job for each in submissions}
            if not detach:
                jobs = follow_builds(farm, list(jobs.values()), quiet=as_json)
            ended = [(each, jobs[each.job.job_id]) for each in submissions]
            paths = [_save(farm, job, destination, stem(source), many=len(ended) > 1) for _, job in ended]
            measured = [_measure(farm, job, quiet=as_json) for _, job in ended] if benchmark else []
            if as_json:
                documents = [_document(*pair, path) for pair, path in zip(ended, paths, strict=True)]
                for document, each in zip(documents, measured, strict=False):
                    document["benchmark"] = each and each.model_dump(mode="json", exclude_none=True)
                print_json({"jobs": documents})
            else:
                _print(ended, paths)
                for each in measured:
                    if each is not None and each.benchmark is not None:
                        print_benchmark(each.benchmark)
            failed = [each for each in measured if each is not None and each.state is not JobState.SUCCEEDED]
            return [*(job for _, job in ended), *failed]

        ended = with_farm(command, builds=not detach)
    if any(job.state in {JobState.FAILED, JobState.CANCELLED} for job in ended):
        raise typer.Exit(Exit.JOB_FAILED)


def valid(kind: type[T], **fields: Any) -> T:
    """``kind`` of these fields; what is wrong with one is told under its option's name."""
    try:
        return kind(**fields)
    except ValidationError as error:
        first = error.errors()[0]
        raise InvalidRequestError(
            f"--{first['loc'][0]}".replace("_seconds", "") + f": {first['msg']}."
        ) from None


def follow_builds(farm: Farm, jobs: list[JobView], *, quiet: bool) -> dict[str, JobView]:
    """The jobs as they ended; an interruption says how to come back to them."""
    try:
        return Follower(farm, quiet=quiet).follow(jobs)
    except KeyboardInterrupt:
        where = "go on" if farm.here is None else "stay queued; the next trtfarm build here takes them up"
        stderr.print(f"\nThe jobs {where}. Come back to them with:")
        for job in jobs:
            stderr.print(f"  trtfarm job watch {quote(job.job_id)}", markup=False)
        raise


def _measure(farm: Farm, job: JobView, *, quiet: bool) -> JobView | None:
    if job.plan is None:
        return None
    return measure(farm, job.plan.digest, None, BenchmarkOptions(), quiet=quiet)


def _destination(options: TrtexecOptions, output: str | None) -> str | None:
    if "timing_cache_file" in options.tool:
        raise OptionUnsupportedError(
            "--timingCacheFile: the farm keeps timing caches itself.", hint="Leave the option out."
        )
    saved = options.tool.get("save_engine")
    if saved and output:
        raise InvalidRequestError("--saveEngine and -o both name the plan's file; give one of them.")
    return str(saved) if saved else output


def _save(farm: Farm, job: JobView, destination: str | None, name: str, *, many: bool) -> Path | None:
    """Where the plan lies on this machine; None if it does not. A folder ends with a slash or is there."""
    if job.plan is None:
        return None
    if destination is None:
        return farm.plan_path(job.plan.digest)
    path = Path(destination)
    if many or _is_folder(destination):
        path /= f"{name}.{job.target.gpu}.plan"
    farm.pull(job.plan, path)
    return path


def _is_folder(destination: str) -> bool:
    return destination.endswith("/") or Path(destination).is_dir()


def _check_destination(destination: str | None, *, many: bool) -> None:
    """Before anything is built. Raises LocalFileError."""
    if destination is None or Path(destination).is_dir():
        return
    if not many and not destination.endswith("/"):
        target_of(destination)
    elif os.path.lexists(destination.rstrip("/")):
        raise LocalFileError(f"{destination} is no folder.", hint="Several plans are written to a folder.")


def _document(submission: SubmissionView, job: JobView, path: Path | None) -> dict[str, Any]:
    plan, error = job.plan, job.error
    return {
        "job_id": job.job_id,
        "state": job.state,
        "disposition": submission.disposition,
        "target": job.target.model_dump(),
        "plan": plan and {"digest": plan.digest, "size_bytes": plan.size_bytes, "path": path and str(path)},
        "build_seconds": job.build_seconds,
        "error": error and error.model_dump(exclude_none=True),
    }


def _print(ended: list[tuple[SubmissionView, JobView]], paths: list[Path | None]) -> None:
    rows = []
    for (submission, job), path in zip(ended, paths, strict=True):
        result = str(path or (job.plan and job.plan.digest) or "")
        if not job.state.terminal:
            result = f"job {job.job_id}"
        elif job.error is not None:
            result = f"[{job.error.code}] {job.error.message}"
        seconds = f"{job.build_seconds:.1f}" if job.build_seconds is not None else ""
        length = size(job.plan.size_bytes) if job.plan else ""
        rows.append(
            (job.target.gpu, job.target.runtime, job.state, submission.disposition, seconds, length, result)
        )
    print_table(
        ("gpu", "runtime", "state", "disposition", "seconds", "size", "plan"), rows, empty="No targets."
    )
    for _, job in ended:
        if job.error is not None and job.error.hint:
            stderr.print(f"{job.target.gpu}: {job.error.hint}", markup=False)
