"""``trtfarm plan pull``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, NamedTuple

import typer
from rich.progress import BarColumn, DownloadColumn, Progress, TransferSpeedColumn

from trtfarm.cli.digests import find_digest
from trtfarm.cli.fitting import (
    Build,
    ComputeCapability,
    Driver,
    Gpu,
    Here,
    PlatformOption,
    RuntimeOption,
    WaitForWorker,
    ask,
    missed,
    question,
)
from trtfarm.cli.output import print_json, size, stderr
from trtfarm.cli.run import exits, with_farm
from trtfarm.cli.trtexec_command import META_KEY
from trtfarm.compose.cache import plan_cache
from trtfarm.compose.farm import Farm
from trtfarm.contract.digest import Digest
from trtfarm.contract.names import ModelName, model_reference
from trtfarm.contract.v1 import PlanView
from trtfarm.errors import FarmUnreachableError, NotFoundError, UnavailableError
from trtfarm.files import target_of
from trtfarm.sdk.plan_cache import Answer, PlanCache, Question

EPILOG = "Example: trtfarm plan pull detector:prod -o detector.plan"
_DIGITS = re.compile(r"(sha256:)?[0-9A-Fa-f]{6,64}")


class Pulled(NamedTuple):
    """``offline``: the farm did not answer, and what it had answered last was taken."""

    answer: Answer
    path: Path
    changed: bool
    offline: bool


def pull(
    context: typer.Context,
    plan: Annotated[
        str,
        typer.Argument(
            metavar="MODEL|PLAN",
            help="A model as name:tag or digest; or a plan's digest, its first digits do.",
        ),
    ],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="File or folder; else a name made of the target.")
    ] = None,
    gpu: Gpu = None,
    compute_capability: ComputeCapability = None,
    runtime: RuntimeOption = None,
    driver: Driver = None,
    platform: PlatformOption = None,
    build: Build = False,
    wait_for_worker: WaitForWorker = False,
    exact: Annotated[
        bool, typer.Option("--exact", help="PLAN is a plan's digest in full, and never taken for a model's.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")] = False,
) -> None:
    """Brings a model's plan for this machine, or a plan by its digest; verified, and replaced at once.

    What was pulled is kept: without the farm, the last answer is used again.
    """
    with exits(as_json=as_json):
        if output is not None and not output.is_dir():
            target_of(output)
        here = Here(gpu, compute_capability, runtime, driver, platform)
        trtexec = context.meta[META_KEY]

        def command(farm: Farm) -> Pulled:
            asked = (
                Digest(plan)
                if exact
                else _asked(farm, plan, here, trtexec, build=build, wait_for_worker=wait_for_worker)
            )
            return _pull(farm, asked, output, quiet=as_json)

        done = with_farm(command, builds=build)
        if as_json:
            print_json(_document(done))
        else:
            _say(done)


def _asked(
    farm: Farm, text: str, here: Here, trtexec: Sequence[str], *, build: bool, wait_for_worker: bool
) -> Question:
    """A plan's digest goes before a model's."""
    reference: Digest | ModelName
    if _DIGITS.fullmatch(text):
        digest = find_digest(farm, text)
        try:
            farm.plan(digest)
        except UnavailableError:
            if plan_cache().has(digest):
                return digest
        except NotFoundError:
            pass  # it may be a model's
        else:
            return digest
        reference = digest
    else:
        reference = model_reference(text)
    return question(reference, here, trtexec, build=build, wait_for_worker=wait_for_worker)


def _pull(farm: Farm, asked: Question, output: Path | None, *, quiet: bool) -> Pulled:
    cache = plan_cache()
    try:
        answer = _answer(farm, asked, quiet=quiet)
    except UnavailableError as error:
        return _offline(cache, farm.url, asked, output, error)
    path = _path(output, answer.plan)
    if not quiet and not isinstance(asked, Digest) and isinstance(asked.model, Digest):
        stderr.print(f"There is no plan {asked.model}, so it is taken for a model: this is a plan of it.")
    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=stderr, transient=True, disable=quiet or not stderr.is_terminal) as bar:
        task = bar.add_task("", total=answer.plan.size_bytes)
        changed = cache.fetch(farm, answer.plan, path, lambda count: bar.advance(task, count))
    cache.remember(farm.url, asked, answer)
    if asked != answer.plan.digest:
        cache.remember(farm.url, answer.plan.digest, answer)
    return Pulled(answer, path, changed, offline=False)


def _answer(farm: Farm, asked: Question, *, quiet: bool) -> Answer:
    now = datetime.now(UTC)
    if isinstance(asked, Digest):
        return Answer(plan=farm.plan(asked), why=(), needs=(), at=now)
    found = ask(farm, asked, quiet=quiet)
    if found.plan is None:
        raise missed(found, asked.model)
    return Answer(plan=found.plan, machine=found.machine, why=found.why, needs=found.needs, at=now)


def _offline(
    cache: PlanCache, farm: str, asked: Question, output: Path | None, error: UnavailableError
) -> Pulled:
    answer = cache.recall(farm, asked)
    if answer is None:
        raise FarmUnreachableError(
            f"{error.message} This machine has not pulled that before.", hint=error.hint
        ) from error
    path = _path(output, answer.plan)
    return Pulled(answer, path, cache.place(answer.plan.digest, path), offline=True)


def _path(output: Path | None, plan: PlanView) -> Path:
    name = f"{plan.model.short}.{plan.target.gpu}.{plan.target.runtime}.plan"
    return output / name if output and output.is_dir() else output or Path(name)


def _document(done: Pulled) -> dict[str, object]:
    plan = done.answer.plan
    age = datetime.now(UTC) - done.answer.at
    return {
        "digest": plan.digest,
        "size_bytes": plan.size_bytes,
        "path": str(done.path),
        "changed": done.changed,
        "model": plan.model,
        "target": plan.target.model_dump(),
        "why": done.answer.why,
        "needs": done.answer.needs,
        "offline": done.offline,
        "resolved_at": done.answer.at.isoformat(),
        "age_seconds": round(age.total_seconds(), 3),
    }


def _say(done: Pulled) -> None:
    answer, plan = done.answer, done.answer.plan
    if done.offline:
        stderr.print(
            f"The farm does not answer. This is what it answered {_age(datetime.now(UTC) - answer.at)} ago; "
            "there may be a newer plan.",
            markup=False,
        )
    verified = "verified" if done.changed else "verified, was there already"
    stderr.print(f"{done.path}  {size(plan.size_bytes)}  {plan.digest} {verified}", markup=False)
    for sentence in (*answer.why, *answer.needs):
        stderr.print(f"  {sentence}", markup=False)


def _age(age: timedelta) -> str:
    seconds = int(age.total_seconds())
    for unit, length in (("day", 86_400), ("hour", 3600), ("minute", 60)):
        if seconds >= length:
            count = seconds // length
            return f"{count} {unit}{'s' * (count > 1)}"
    return f"{seconds} s"
