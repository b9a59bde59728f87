"""``trtfarm campaign`` and ``trtfarm coverage``."""

from __future__ import annotations

from pathlib import Path
from shlex import quote
from typing import Annotated, Any

import typer

from trtfarm.cli import declaration
from trtfarm.cli.matrix import counts, follow, print_matrix
from trtfarm.cli.model_source import ModelSource, upload
from trtfarm.cli.output import print_json, print_table, stderr
from trtfarm.cli.run import Exit, exits, with_farm
from trtfarm.cli.trtexec_command import META_KEY, TrtexecCommand
from trtfarm.compose.farm import Farm
from trtfarm.contract.campaign import CampaignView, CellState, CellView, Coverage
from trtfarm.contract.digest import Digest
from trtfarm.contract.names import ModelName, model_reference
from trtfarm.contract.v1 import DEFAULT_TIMEOUT_SECONDS

app = typer.Typer(
    help="Campaigns: models for many targets, submitted and followed as one.", no_args_is_help=True
)
Json = Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")]
Name = Annotated[str, typer.Argument(help="The campaign's name or id.")]
Detach = Annotated[bool, typer.Option("--detach", help="Submit and return at once.")]
RetryFailed = Annotated[
    bool, typer.Option("--retry-failed", help="Try cells again that TensorRT has refused.")
]
AllowRefused = Annotated[
    bool, typer.Option("--allow-refused", help="Exit with 0 although TensorRT refuses cells.")
]


@app.command(
    cls=TrtexecCommand,
    epilog="Example: trtfarm campaign submit models/*.onnx --gpu l4 --gpu rtx-5090 --name nightly, "
    "or with a file: trtfarm campaign submit campaign.toml",
)
def submit(
    context: typer.Context,
    models: Annotated[
        list[str],
        typer.Argument(help="ONNX files, digests, name:tag; or one campaign file (.toml)."),
    ],
    gpu: Annotated[list[str] | None, typer.Option(help="A product or a capability; repeat.")] = None,
    runtime: Annotated[list[str] | None, typer.Option(help="As for build; repeat for several.")] = None,
    config: Annotated[
        list[str] | None,
        typer.Option(help="NAME=OPTIONS: a builder config of trtexec's options; repeat for several."),
    ] = None,
    name: Annotated[str | None, typer.Option(help="Declared again by it, it is the same campaign.")] = None,
    priority: Annotated[int, typer.Option(min=-100, max=100, help="Higher goes first.")] = 0,
    timeout: Annotated[float, typer.Option(help="Seconds after which a build is given up.")] = (
        DEFAULT_TIMEOUT_SECONDS
    ),
    wait_for_worker: Annotated[
        bool, typer.Option("--wait-for-worker", help="Accept targets that no worker serves yet.")
    ] = False,
    retry_failed: RetryFailed = False,
    allow_refused: AllowRefused = False,
    detach: Detach = False,
    as_json: Json = False,
) -> None:
    """Builds every model for every target with every config; what is built already is reused.

    Declared again, only what is missing is built. Options given here go before what a campaign file says.
    """
    with exits(as_json=as_json):
        wanted = declaration.read(
            models,
            declaration.Given(
                gpus=tuple(gpu or ()),
                runtimes=tuple(runtime or ()),
                configs=tuple(config or ()),
                options=tuple(context.meta[META_KEY]),
                name=name,
                priority=priority if _given(context, "priority") else None,
                timeout_seconds=timeout if _given(context, "timeout") else None,
                wait_for_worker=wait_for_worker,
                retry_failed=retry_failed,
            ),
        )

        def command(farm: Farm) -> CampaignView:
            references = [_model(farm, model.source, quiet=as_json) for model in wanted.models]
            return _through(
                farm, farm.campaigns.submit(wanted.request(references)), detach=detach, as_json=as_json
            )

        view = with_farm(command, builds=not detach)
    _exit(view, allow_refused=allow_refused)


@app.command("list", epilog="Example: trtfarm campaign list")
def list_campaigns(
    limit: Annotated[int, typer.Option(min=1, max=500)] = 20,
    cursor: Annotated[str | None, typer.Option(help="Go on from a page's `next`.")] = None,
    as_json: Json = False,
) -> None:
    """Lists campaigns, newest first."""
    with exits(as_json=as_json):
        page = with_farm(lambda farm: farm.campaigns.page(limit=limit, cursor=cursor))
        if as_json:
            print_json(page.model_dump(mode="json"))
            return
        rows = [
            (each.name, f"{each.coverage.covered}/{each.coverage.wanted}", each.coverage.refused,
             each.coverage.live, each.coverage.holes, each.priority, f"{each.updated_at:%Y-%m-%d %H:%M}",
             "cancelled" if each.cancelled_at else "", each.campaign_id)
            for each in page.campaigns
        ]  # fmt: skip
        columns = ("campaign", "plans", "refused", "under way", "holes", "priority", "declared", "", "id")
        print_table(columns, rows, empty="No campaigns.")
        if page.next:
            stderr.print(f"More: trtfarm campaign list --cursor {quote(page.next)}", markup=False)


@app.command(epilog="Example: trtfarm campaign show nightly --watch")
def show(
    campaign: Name,
    watch: Annotated[bool, typer.Option("--watch", help="Follow it until nothing is under way.")] = False,
    allow_refused: AllowRefused = False,
    as_json: Json = False,
) -> None:
    """Shows the matrix of a campaign with its errors; plans whose bytes are gone are noticed.

    With --watch it ends as submit does.
    """
    with exits(as_json=as_json):

        def command(farm: Farm) -> CampaignView:
            view = farm.campaigns.get(campaign, check=True)
            if watch:
                view = _follow(farm, view, quiet=as_json)
            if as_json:
                print_json(view.model_dump(mode="json", exclude_none=True))
            else:
                _print(view)
            return view

        view = with_farm(command, builds=watch)
    if watch:
        _exit(view, allow_refused=allow_refused)


@app.command(epilog="Example: trtfarm campaign fill nightly")
def fill(
    campaign: Name,
    retry_failed: RetryFailed = False,
    allow_refused: AllowRefused = False,
    detach: Detach = False,
    as_json: Json = False,
) -> None:
    """Submits the holes alone: cells that failed, were cancelled, or whose plan is lost."""
    with exits(as_json=as_json):

        def command(farm: Farm) -> CampaignView:
            view = farm.campaigns.fill(campaign, retry_failed=retry_failed)
            return _through(farm, view, detach=detach, as_json=as_json)

        view = with_farm(command, builds=not detach)
    _exit(view, allow_refused=allow_refused)


@app.command(epilog="Example: trtfarm campaign cancel nightly")
def cancel(campaign: Name, as_json: Json = False) -> None:
    """Ends its jobs, but for those that others have submitted, too; fill takes it up again."""
    with exits(as_json=as_json):
        done = with_farm(lambda farm: farm.campaigns.cancel(campaign))
        if as_json:
            print_json(done.model_dump(mode="json", exclude_none=True))
            return
        shared = f"; {done.shared} go on, as others have submitted them, too" if done.shared else ""
        stderr.print(
            f"{done.campaign.name}: {done.ended} cancelled, {done.asked} being cancelled{shared}. "
            f"Take it up again: trtfarm campaign fill {quote(done.campaign.name)}",
            markup=False,
        )


def coverage(
    campaign: Annotated[str | None, typer.Option(help="Only of this campaign.")] = None,
    model: Annotated[str | None, typer.Option(help="Only of this model: digest or name:tag.")] = None,
    as_json: Json = False,
) -> None:
    """Shows which of the cells that campaigns want have a plan, by campaign and by model."""
    with exits(as_json=as_json):
        reference = model_reference(model) if model else None
        view = with_farm(lambda farm: farm.campaigns.coverage(campaign=campaign, model=reference, check=True))
        if as_json:
            print_json(view.model_dump(mode="json", exclude_none=True))
            return
        columns = ("plans", "refused", "under way", "holes")
        rows = [(", ".join(each.names), each.model.short, *_figures(each.coverage)) for each in view.models]
        print_table(("model", "digest", *columns), rows, empty="No campaign wants anything.")
        if view.campaigns:
            rows = [(each.name, each.campaign_id, *_figures(each.coverage)) for each in view.campaigns]
            print_table(("campaign", "id", *columns), rows, empty="")


def _figures(coverage: Coverage) -> tuple[str, ...]:
    return (
        f"{coverage.covered}/{coverage.wanted}",
        *map(str, (coverage.refused, coverage.live, coverage.holes)),
    )


def _given(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name != "DEFAULT"


def _model(farm: Farm, source: ModelSource, *, quiet: bool) -> Digest | ModelName:
    """A name stays one: declared again, the campaign is of what the name then stands for."""
    return upload(farm, source, quiet=quiet) if isinstance(source, Path) else source


def _through(farm: Farm, view: CampaignView, *, detach: bool, as_json: bool) -> CampaignView:
    """Follows what was submitted, and says how it ended."""
    dispositions = {cell.build_key: cell.disposition for cell in view.cells}
    if not as_json and view.changes is not None:
        changes = view.changes
        stderr.print(
            f"{view.name}: {changes.created} jobs created, {changes.joined} joined, {changes.reused} plans "
            f"reused; {changes.added} cells came, {changes.removed} went.",
            markup=False,
        )
        _tell_who_is_missing(farm, view)
    if not detach:
        view = _follow(farm, view, quiet=as_json)
    if as_json:
        jobs = [_document(farm, cell, dispositions.get(cell.build_key)) for cell in view.cells]
        summary = {"campaign_id": view.campaign_id, "name": view.name, "coverage": view.coverage.model_dump()}
        print_json({**summary, "jobs": jobs})
    elif detach:
        stderr.print(f"Follow it: trtfarm campaign show {quote(view.name)} --watch", markup=False)
    else:
        _print(view)
    return view


def _tell_who_is_missing(farm: Farm, view: CampaignView) -> None:
    """A job may wait for a worker that has left; its submitter should know."""
    waiting = {cell.target.queue for cell in view.cells if cell.state is CellState.QUEUED}
    served = {queue.queue for queue in farm.fleet().queues if queue.workers} if waiting else set()
    if waiting - served:
        queues = ", ".join(sorted(waiting - served))
        stderr.print(f"No worker is there now for {queues}; these cells wait for one.", markup=False)


def _follow(farm: Farm, view: CampaignView, *, quiet: bool) -> CampaignView:
    try:
        return follow(farm.campaigns, view, quiet=quiet)
    except KeyboardInterrupt:
        where = "goes on" if farm.here is None else "stays queued"
        stderr.print(
            f"\nThe campaign {where}. Come back to it with: trtfarm campaign show {quote(view.name)} --watch",
            markup=False,
        )
        raise


def _document(farm: Farm, cell: CellView, disposition: str | None) -> dict[str, Any]:
    """As ``build --json`` says it, with the cell's model and config."""
    plan, error = cell.plan, cell.error
    path = farm.plan_path(plan.digest) if plan else None
    refused = cell.state is CellState.REFUSED
    return {
        "job_id": cell.job_id,
        "state": CellState.FAILED if refused else cell.state,
        "refused": refused,
        "disposition": disposition,
        "model": cell.model,
        "name": cell.name,
        "config": cell.config,
        "target": cell.target.model_dump(),
        "plan": plan and {"digest": plan.digest, "size_bytes": plan.size_bytes, "path": path and str(path)},
        "build_seconds": cell.build_seconds,
        "error": error and error.model_dump(exclude_none=True),
    }


def _print(view: CampaignView) -> None:
    print_matrix(view)
    stderr.print(f"{view.name}: {counts(view.coverage, view.cells)}.", markup=False)
    if view.coverage.holes:
        stderr.print(f"Build what is missing: trtfarm campaign fill {quote(view.name)}", markup=False)


def _exit(view: CampaignView, *, allow_refused: bool) -> None:
    if view.coverage.holes or (view.coverage.refused and not allow_refused):
        raise typer.Exit(Exit.JOB_FAILED)
