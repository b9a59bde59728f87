"""``trtfarm plan``."""

from __future__ import annotations

import json
from shlex import quote
from typing import Annotated, Any

import typer
from pydantic import ValidationError

from trtfarm.cli import pull, resolve
from trtfarm.cli.digests import find_digest
from trtfarm.cli.measure import print_benchmark
from trtfarm.cli.output import print_fields, print_json, print_table, size, stderr
from trtfarm.cli.run import exits, with_farm
from trtfarm.cli.trtexec_command import TrtexecCommand
from trtfarm.compose.farm import Farm
from trtfarm.contract.benchmark import BenchmarkView
from trtfarm.contract.digest import Digest
from trtfarm.contract.engine_io import EngineIo
from trtfarm.contract.v1 import PlanView
from trtfarm.errors import IncompatibleFarmError
from trtfarm.sdk.answers import read

app = typer.Typer(help="Plans: list, show, resolve, pull, export.", no_args_is_help=True)
Json = Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")]
Name = Annotated[str, typer.Argument(help="The plan's digest; its first digits do.")]


@app.command("list", epilog="Example: trtfarm plan list --gpu cc-8.9")
def list_plans(
    model: Annotated[str | None, typer.Option(help="Only of this model: name:tag or digest.")] = None,
    gpu: Annotated[str | None, typer.Option(help="Only for this GPU or capability.")] = None,
    runtime: Annotated[str | None, typer.Option(help="Only for this runtime.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=500)] = 20,
    cursor: Annotated[str | None, typer.Option(help="Go on from a page's `next`.")] = None,
    as_json: Json = False,
) -> None:
    """Lists plans, newest first."""
    with exits(as_json=as_json):
        filters = {"model": model, "gpu": gpu, "runtime": runtime}
        page, measured = with_farm(
            lambda farm: (
                farm.plans(limit=limit, cursor=cursor, **filters),
                farm.benchmarks(limit=500, **filters).benchmarks,
            )
        )
        if as_json:
            print_json(page.model_dump(mode="json"))
            return
        newest = {each.plan: each for each in reversed(measured)}
        rows = [
            (plan.digest, plan.target.gpu, plan.target.runtime, size(plan.size_bytes),
             f"{plan.build_seconds:.1f}", f"{plan.created_at:%Y-%m-%d %H:%M}", plan.model.short,
             _speed(newest.get(plan.digest)))
            for plan in page.plans
        ]  # fmt: skip
        columns = ("plan", "gpu", "runtime", "size", "seconds", "built", "model", "measured")
        print_table(columns, rows, empty="No plans.")
        if page.next:
            stderr.print(f"More: trtfarm plan list --cursor {quote(page.next)}", markup=False)


@app.command(epilog="Example: trtfarm plan show sha256:2f0c…")
def show(plan: Name, as_json: Json = False) -> None:
    """Shows what a plan was built from and for, and its inputs and outputs."""
    with exits(as_json=as_json):
        view, tensors, benchmarks = with_farm(lambda farm: _read(farm, plan))
        if as_json:
            measured = [each.model_dump(mode="json") for each in benchmarks]
            print_json({**view.model_dump(mode="json"), "tensors": tensors, "benchmarks": measured})
            return
        print_fields(
            {
                "plan": view.digest,
                "size": f"{size(view.size_bytes)} ({view.size_bytes} bytes)",
                "model": view.model,
                "gpu": view.target.gpu,
                "runtime": view.target.runtime,
                "platform": view.target.platform,
                "config": view.config.canonical() or "TensorRT's defaults",
                "built": f"{view.created_at:%Y-%m-%d %H:%M:%S} UTC in {view.build_seconds:.2f} s",
                "job": view.job_id,
                "timing cache": _cache(view),
                **{f"{kind[:-1]} {each['name']}": _tensor(each) for kind, each in _tensors(tensors)},
            }
        )
        for each in benchmarks:
            print_benchmark(each)


app.command(cls=TrtexecCommand, epilog=pull.EPILOG)(pull.pull)
app.command(cls=TrtexecCommand, epilog=resolve.EPILOG)(resolve.resolve)


def _read(farm: Farm, name: str) -> tuple[PlanView, dict[str, Any], tuple[BenchmarkView, ...]]:
    view = farm.plan(find_digest(farm, name))
    tensors = _described(farm, view.io) if view.io else {}
    return view, tensors, farm.benchmarks(plan=view.digest, limit=5).benchmarks


def _described(farm: Farm, io: Digest) -> dict[str, Any]:
    data = farm.artifact(io)
    try:
        read(EngineIo, data)
    except ValidationError:
        raise IncompatibleFarmError("The plan's inputs and outputs are told in words unknown here.") from None
    described: dict[str, Any] = json.loads(data)
    return described


def _cache(view: PlanView) -> str | None:
    use = view.timing_cache
    if use is None:
        return None
    start = f"from revision {use.revision}" if use.attached else "cold"
    known = f", {use.entries_before} to {use.entries_after} entries" if use.entries_after is not None else ""
    return f"{start}, {size(use.bytes_before)} to {size(use.bytes_after)}{known}"


def _tensors(document: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    return [(kind, each) for kind in ("inputs", "outputs") for each in document.get(kind, ())]


def _tensor(each: dict[str, Any]) -> str:
    return f"{each['dtype']} {'x'.join('?' if dim < 0 else str(dim) for dim in each['shape'])}"


def _speed(benchmark: BenchmarkView | None) -> str:
    if benchmark is None:
        return ""
    measured = benchmark.measurement
    return f"{measured.gpu_compute.mean:.3f} ms, {measured.throughput_qps:.0f} qps"
