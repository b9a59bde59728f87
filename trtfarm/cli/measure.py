"""Measuring a plan, and showing the figures."""

from __future__ import annotations

from shlex import quote
from typing import Any

from trtfarm.cli.follow import Follower
from trtfarm.cli.output import print_table, size, stderr
from trtfarm.compose.farm import Farm
from trtfarm.contract.benchmark import BenchmarkOptions, BenchmarkView, Metric
from trtfarm.contract.digest import Digest
from trtfarm.contract.jobs import JobKind
from trtfarm.contract.v1 import DEFAULT_TIMEOUT_SECONDS, JobRequest, JobView, TargetRequest
from trtfarm.sdk import asked


def measure(
    farm: Farm,
    plan: Digest,
    gpu: str | None,
    options: BenchmarkOptions,
    *,
    quiet: bool,
    priority: int = 0,
    timeout: float = DEFAULT_TIMEOUT_SECONDS,
) -> JobView:
    """Submits a benchmark and follows it to its end."""
    target = TargetRequest(gpu=gpu) if gpu else None
    request = JobRequest(
        kind=JobKind.BENCHMARK,
        plan=plan,
        target=target,
        benchmark=options,
        priority=priority,
        timeout_seconds=timeout,
    )
    job = farm.submit(request).job
    try:
        ended = Follower(farm, quiet=quiet).follow([job])[job.job_id]
    except KeyboardInterrupt:
        stderr.print(f"\nThe job goes on: trtfarm job watch {quote(job.job_id)}")
        raise
    asked.measured(plan, ended)
    return ended


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
