"""``trtfarm order``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError

from trtfarm.cli.declaration import named_configs
from trtfarm.cli.model_source import model_source, upload
from trtfarm.cli.output import print_fields, print_json, print_table, stderr
from trtfarm.cli.run import Exit, exits, with_farm
from trtfarm.cli.trtexec_command import META_KEY, TrtexecCommand
from trtfarm.compose.farm import Farm
from trtfarm.contract.campaign import CellState
from trtfarm.contract.order import (
    Measured,
    OrderCell,
    OrderRequest,
    OrderView,
    RolloutReport,
    RolloutRow,
    Verdict,
)
from trtfarm.contract.v1 import DEFAULT_TIMEOUT_SECONDS
from trtfarm.errors import InvalidRequestError

app = typer.Typer(
    help="Standing orders: a model that stays built and measured for the whole fleet.", no_args_is_help=True
)
Json = Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")]
Name = Annotated[str, typer.Argument(help="The order's name or id.")]
_MEASURED = {
    Measured.DONE: "measured",
    Measured.QUEUED: "measurement queued",
    Measured.RUNNING: "being measured",
    Measured.FAILED: "measurement failed",
    Measured.MISSING: "to be measured",
    Measured.WAITING: "",
    Measured.IMPOSSIBLE: "not measured: no worker on such a GPU",
    Measured.OFF: "",
}


@app.command(
    cls=TrtexecCommand, epilog="Example: trtfarm order create detector --model detector:prod --fp16 --gpu l4"
)
def create(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="Created again by it, it is the same order.")],
    model: Annotated[str, typer.Option(help="name:tag, which is followed; a digest; an ONNX file.")],
    gpu: Annotated[
        list[str] | None, typer.Option(help="A product or a capability; repeat. Without: all of the fleet.")
    ] = None,
    runtime: Annotated[
        list[str] | None, typer.Option(help="As for build; repeat. Without: all of the fleet.")
    ] = None,
    config: Annotated[
        list[str] | None,
        typer.Option(help="NAME=OPTIONS: a builder config of trtexec's options; repeat for several."),
    ] = None,
    no_benchmark: Annotated[bool, typer.Option("--no-benchmark", help="Build only.")] = False,
    priority: Annotated[int, typer.Option(min=-100, max=100, help="Higher goes first.")] = -10,
    timeout: Annotated[float, typer.Option(help="Seconds after which a job is given up.")] = (
        DEFAULT_TIMEOUT_SECONDS
    ),
    as_json: Json = False,
) -> None:
    """Keeps a model built and measured for every GPU and runtime of the fleet, until the order is deleted.

    When the model's name moves, a GPU or a TensorRT version joins the fleet, or a plan is lost, what is
    missing is submitted by itself. Old plans stay; nothing is switched to new ones.
    """
    with exits(as_json=as_json):
        configs = named_configs(config or (), tuple(context.meta[META_KEY]))
        source = model_source(model)

        def command(farm: Farm) -> OrderView:
            reference = upload(farm, source, quiet=as_json) if isinstance(source, Path) else source
            try:
                request = OrderRequest(
                    name=name,
                    model=reference,
                    gpus=tuple(gpu or ()),
                    runtimes=tuple(runtime or ()),
                    configs=configs,
                    benchmark=not no_benchmark,
                    priority=priority,
                    timeout_seconds=timeout,
                )
            except ValidationError as error:
                raise InvalidRequestError(f"{error.errors()[0]['msg']}.") from None
            return farm.orders.declare(request)

        _print(with_farm(command), as_json=as_json)


@app.command("list", epilog="Example: trtfarm order list")
def list_orders(as_json: Json = False) -> None:
    """Lists standing orders."""
    with exits(as_json=as_json):
        found = with_farm(lambda farm: farm.orders.list())
        if as_json:
            print_json(found.model_dump(mode="json", exclude_none=True))
            return
        rows = [
            (each.name, each.model, f"{each.coverage.covered}/{each.coverage.wanted}", each.coverage.refused,
             each.coverage.live, each.coverage.holes, each.measured.get(Measured.DONE, 0),
             each.problem.message if each.problem else "")
            for each in found.orders
        ]  # fmt: skip
        columns = ("order", "model", "plans", "refused", "under way", "holes", "measured", "")
        print_table(columns, rows, empty="No orders.")


@app.command(epilog="Example: trtfarm order show detector")
def show(order: Name, as_json: Json = False) -> None:
    """Shows what an order wants of the fleet, and how each target of it stands."""
    with exits(as_json=as_json):
        _print(with_farm(lambda farm: farm.orders.get(order, check=True)), as_json=as_json)


@app.command(epilog="Example: trtfarm order delete detector")
def delete(order: Name, as_json: Json = False) -> None:
    """Ends an order and its jobs, but for those that others have submitted, too; its plans stay."""
    with exits(as_json=as_json):
        done = with_farm(lambda farm: farm.orders.delete(order))
        if as_json:
            print_json({"order": order, "state": "deleted", **done.model_dump(exclude={"name"})})
            return
        shared = f", {done.shared} go on for others" if done.shared else ""
        stderr.print(
            f"Order {order} is deleted; its plans stay. "
            f"Jobs: {done.ended} cancelled, {done.asked} being cancelled{shared}.",
            markup=False,
        )


@app.command(epilog="Example: trtfarm order report detector --runtime tensorrt-11.4 --against tensorrt-10.16")
def report(
    order: Name,
    runtime: Annotated[
        str | None, typer.Option(help="The new version; by default each GPU's newest.")
    ] = None,
    against: Annotated[
        str | None, typer.Option(help="The old one; by default the newest before it with a plan.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Compares a new TensorRT version with the one before: what built, what failed, faster or slower.

    Exits with 1 if a build failed. Nothing is switched by it.
    """
    with exits(as_json=as_json):
        found = with_farm(lambda farm: farm.orders.report(order, runtime=runtime, against=against))
        if as_json:
            print_json(found.model_dump(mode="json", exclude_none=True))
        else:
            _print_report(found)
    if found.counts.get(Verdict.FAILED):
        raise typer.Exit(Exit.JOB_FAILED)


def _print(view: OrderView, *, as_json: bool) -> None:
    if as_json:
        print_json(view.model_dump(mode="json", exclude_none=True))
        return
    coverage = view.coverage
    print_fields(
        {
            "order": view.name,
            "model": view.model,
            "stands for": view.digest if view.digest != view.model else None,
            "plans": f"{coverage.covered}/{coverage.wanted}, {coverage.refused} refused, "
            f"{coverage.live} under way, {coverage.holes} holes",
            "problem": view.problem and f"[{view.problem.code}] {view.problem.message}",
            "hint": view.problem and view.problem.hint,
        }
    )
    rows = [
        (cell.target.gpu, cell.target.runtime, cell.config, cell.state, _measured(cell), _result(cell))
        for cell in view.cells or ()
    ]
    if rows:
        print_table(("gpu", "runtime", "config", "state", "measured", "plan"), rows, empty="")


def _measured(cell: OrderCell) -> str:
    figures = [
        f"{each.gpu} {each.gpu_compute_mean_ms:.3f} ms"
        for each in cell.benchmarks
        if each.gpu_compute_mean_ms is not None
    ]
    return ", ".join(figures) or _MEASURED[cell.measured]


def _result(cell: OrderCell) -> str:
    if cell.error is not None and cell.state is not CellState.SUCCEEDED:
        return f"[{cell.error.code}] {cell.error.message}"
    return cell.plan.digest if cell.plan else (cell.job_id or "")


def _print_report(found: RolloutReport) -> None:
    rows = [
        (row.gpu, row.target.runtime, row.before or "", row.config, row.verdict, _change(row),
         f"[{row.error.code}] {row.error.message}" if row.error else "")
        for row in found.rows
    ]  # fmt: skip
    columns = ("gpu", "runtime", "before", "config", "", "GPU compute, mean", "")
    print_table(columns, rows, empty="The order has no targets.")
    if found.problem is not None:
        stderr.print(f"[{found.problem.code}] {found.problem.message}", markup=False)
    stderr.print(", ".join(f"{count} {verdict}" for verdict, count in found.counts.items()), markup=False)


def _change(row: RolloutRow) -> str:
    if row.change_percent is not None:
        return f"{row.before_mean_ms:.3f} ms → {row.mean_ms:.3f} ms ({row.change_percent:+.1f} %)"
    if row.mean_ms is not None:
        return f"{row.mean_ms:.3f} ms"
    return _MEASURED[row.measured]
