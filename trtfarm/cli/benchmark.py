"""``trtfarm benchmark``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from trtfarm.cli.digests import find_digest
from trtfarm.cli.follow import Follower
from trtfarm.cli.output import print_json, print_table, size, stderr
from trtfarm.cli.run import Exit, exits, with_farm
from trtfarm.compose.session import Session
from trtfarm.contract.benchmark import BenchmarkOptions, BenchmarkView, Metric
from trtfarm.contract.digest import Digest
from trtfarm.contract.jobs import JobKind, JobState
from trtfarm.contract.trtexec_values import shapes as parse_shapes
from trtfarm.contract.v1 import JobRequest, JobView, TargetRequest
from trtfarm.errors import InvalidRequestError


def benchmark(
    plan: Annotated[str, typer.Argument(help="The plan's digest; its first digits do.")],
    gpu: Annotated[str | None, typer.Option(help="The product to measure on; else the plan's.")] = None,
    shapes: Annotated[
        str | None, typer.Option("--shapes", help="name:1x3x224x224[,…]; else the profile's optimum.")
    ] = None,
    use_profile: Annotated[int, typer.Option("--useProfile", min=0, help="Optimization profile.")] = 0,
    inf_streams: Annotated[int, typer.Option("--infStreams", min=1, help="Contexts at the same time.")] = 1,
    no_cuda_graph: Annotated[bool, typer.Option("--noCudaGraph", help="Enqueue instead.")] = False,
    transfers: Annotated[
        bool, typer.Option("--includeDataTransfers", help="Copy inputs and outputs each time.")
    ] = False,
    no_spin_wait: Annotated[bool, typer.Option("--noSpinWait", help="Sleep while waiting.")] = False,
    warm_up: Annotated[float, typer.Option("--warmUp", help="Milliseconds that do not count.")] = 200,
    duration: Annotated[float, typer.Option("--duration", help="Seconds at least.")] = 3,
    iterations: Annotated[int, typer.Option("--iterations", min=1, help="Inferences at least.")] = 10,
    percentile: Annotated[str, typer.Option("--percentile", help="Percentiles to tell.")] = "90,95,99",
    seed: Annotated[int, typer.Option(min=0, help="Of the random inputs.")] = 0,
    export_times: Annotated[
        Path | None, typer.Option("--exportTimes", help="Every sample, as trtexec writes it.")
    ] = None,
    export_profile: Annotated[
        Path | None, typer.Option("--exportProfile", help="Time by layer, as trtexec writes it.")
    ] = None,
    export_layer_info: Annotated[
        Path | None, typer.Option("--exportLayerInfo", help="The engine's layers, as trtexec writes them.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")] = False,
) -> None:
    """Measures a plan on a GPU, with trtexec's metrics. Defaults are those of trtexec 11."""
    with exits(as_json=as_json):
        options = BenchmarkOptions(
            shapes=_shapes(shapes),
            use_profile=use_profile,
            inf_streams=inf_streams,
            cuda_graph=not no_cuda_graph,
            transfers=transfers,
            spin_wait=not no_spin_wait,
            warm_up_ms=warm_up,
            duration_seconds=duration,
            iterations=iterations,
            percentiles=_percentiles(percentile),
            seed=seed,
            layers=export_profile is not None or export_layer_info is not None,
        )

        def command(farm: Session) -> JobView:
            job = measure(farm, find_digest(farm, plan), gpu, options, quiet=as_json)
            if job.benchmark is not None:
                view = job.benchmark
                _export(farm, view.times, export_times)
                _export(farm, view.layer_profile, export_profile)
                _export(farm, view.layer_information, export_layer_info)
            return job

        job = with_farm(command, builds=True)
        if as_json:
            print_json(job.model_dump(mode="json", exclude_none=True))
        elif job.benchmark is not None:
            print_benchmark(job.benchmark)
    if job.state is not JobState.SUCCEEDED:
        raise typer.Exit(Exit.JOB_FAILED)


def measure(
    farm: Session, plan: Digest, gpu: str | None, options: BenchmarkOptions, *, quiet: bool
) -> JobView:
    """Submits a benchmark and follows it to its end."""
    target = TargetRequest(gpu=gpu) if gpu else None
    request = JobRequest(kind=JobKind.BENCHMARK, plan=plan, target=target, benchmark=options)
    job = farm.client.submit(request).job
    try:
        return Follower(farm.client, quiet=quiet).follow([job])[job.job_id]
    except KeyboardInterrupt:
        stderr.print(f"\nThe job goes on: trtfarm job watch {job.job_id}", markup=False)
        raise


def print_benchmark(view: BenchmarkView) -> None:
    """The figures as a table, in milliseconds."""
    m = view.measurement
    shapes = ", ".join(f"{name}:{'x'.join(map(str, shape))}" for name, shape in m.shapes.items())
    stderr.print(f"{view.gpu}, {view.runtime}, {shapes}", markup=False)
    names = ("latency", "enqueue", "h2d", "gpu_compute", "d2h")
    percentiles = [f"{each:g}" for each in view.options.percentiles]
    rows = [_row(name, getattr(m, name), percentiles) for name in names]
    columns = ("ms", "min", "max", "mean", "median", *(f"{p} %" for p in percentiles), "CoV %")
    print_table(columns, rows, empty="")
    usage = m.usage
    energy = usage.energy_joules_per_inference
    parts = [
        f"throughput {m.throughput_qps:.2f} qps",
        f"{m.samples} samples in {m.host_walltime_seconds:.2f} s",
        f"GPU memory {size(m.device_memory_bytes)}",
    ]
    if usage.power_watts is not None and energy is not None:
        parts.append(f"{usage.power_watts:.0f} W, {energy * 1000:.2f} mJ per inference")
    stderr.print(", ".join(parts), markup=False)
    if usage.throttle_reasons:
        stderr.print(f"The clocks were held down: {', '.join(usage.throttle_reasons)}.", markup=False)


def _row(name: str, metric: Metric, percentiles: list[str]) -> tuple[Any, ...]:
    picked = [f"{metric.percentiles[p]:.4f}" for p in percentiles]
    head = (metric.min, metric.max, metric.mean, metric.median)
    return (name, *(f"{value:.4f}" for value in head), *picked, f"{metric.coefficient_of_variation:.2f}")


def _export(farm: Session, digest: Digest | None, path: Path | None) -> None:
    if digest is not None and path is not None:
        path.write_bytes(farm.client.artifact(digest))


def _shapes(text: str | None) -> dict[str, tuple[int, ...]]:
    try:
        return dict(parse_shapes(text)) if text else {}
    except ValueError as error:
        raise InvalidRequestError(f"--shapes: {error}") from error


def _percentiles(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(",") if part)
    except ValueError:
        raise InvalidRequestError(f"--percentile {text!r}: write numbers, as 90,95,99.") from None
