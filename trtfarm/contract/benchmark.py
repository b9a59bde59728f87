"""Measuring a plan: options and metrics, with trtexec's names, definitions and units."""

from __future__ import annotations

import statistics
import struct
from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import AwareDatetime, Field

from trtfarm.contract.device import Device
from trtfarm.contract.digest import Digest
from trtfarm.contract.profiles import Shape
from trtfarm.contract.value import NO_NUL, Value

TensorName = Annotated[str, Field(min_length=1, max_length=1000, pattern=NO_NUL)]


class BenchmarkOptions(Value):
    """How to measure. Every one is stored with the figures: trtexec changed its defaults in 11.0.

    Attributes:
        shapes: input name → shape; without, the optimum of the profile.
        use_profile: optimization profile, from 0.
        inf_streams: execution contexts that run at the same time.
        cuda_graph: launch a captured graph instead of enqueueing.
        transfers: copy inputs and outputs on every inference.
        spin_wait: wait actively; less latency, one busy core.
        warm_up_ms: milliseconds of GPU time that do not count.
        duration_seconds: at least so long, and
        iterations: at least so many inferences.
        inputs: input name → artifact with its raw values, in C order; the others are random.
        seed: of random inputs.
    """

    shapes: dict[str, Shape] = Field(default_factory=dict)
    use_profile: Annotated[int, Field(ge=0, lt=64)] = 0
    inf_streams: Annotated[int, Field(ge=1, le=64)] = 1
    cuda_graph: bool = True
    transfers: bool = False
    spin_wait: bool = True
    warm_up_ms: Annotated[float, Field(ge=0, le=600_000)] = 200.0
    duration_seconds: Annotated[float, Field(ge=0, le=3600)] = 3.0
    iterations: Annotated[int, Field(ge=1, le=10_000_000)] = 10
    percentiles: tuple[Annotated[float, Field(ge=0, le=100)], ...] = (90.0, 95.0, 99.0)
    inputs: Annotated[dict[TensorName, Digest], Field(max_length=256)] = Field(default_factory=dict)
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    layers: bool = False

    def __hash__(self) -> int:
        return hash(self.model_dump_json())


class Metric(Value):
    """Milliseconds. ``coefficient_of_variation`` in percent, of the population."""

    min: float
    max: float
    mean: float
    median: float
    percentiles: dict[str, float]
    coefficient_of_variation: float

    @classmethod
    def of(cls, samples: Sequence[float], percentiles: Sequence[float]) -> Metric:
        """Trtexec's definitions: no interpolation between samples (its ``getPercentile``)."""
        ordered = sorted(samples)
        count, mean = len(ordered), statistics.fmean(ordered)
        picked = {f"{p:g}": ordered[_percentile_index(p, count)] for p in percentiles}
        deviation = statistics.pstdev(ordered, mean)
        return cls(
            min=ordered[0],
            max=ordered[-1],
            mean=mean,
            median=statistics.median(ordered),
            percentiles=picked,
            coefficient_of_variation=100 * deviation / mean if mean else 0.0,
        )


def _percentile_index(percentile: float, count: int) -> int:
    """Trtexec computes in float32, and that decides the index: of 1000 samples, p99 is the 991st."""
    excluded = _float32(_float32(1 - _float32(_float32(percentile) / 100)) * count)
    return max(count - 1 - int(excluded), 0)


def _float32(value: float) -> float:
    rounded: float = struct.unpack("f", struct.pack("f", value))[0]
    return rounded


class Usage(Value):
    """What the GPU did meanwhile, by NVML; None where it does not tell.

    ``throttle_reasons``: NVML's names of what held the clocks down at any sample.
    """

    power_watts: float | None = None
    energy_joules_per_inference: float | None = None
    sm_clock_mhz_min: int | None = None
    sm_clock_mhz_max: int | None = None
    temperature_celsius_max: int | None = None
    throttle_reasons: tuple[str, ...] = ()
    foreign_processes: int = 0


class Measurement(Value):
    """The figures of one benchmark.

    Attributes:
        throughput_qps: inferences per second of ``host_walltime_seconds``; not images.
        host_walltime_seconds: from the first kept sample's start to the last one's end, on the GPU's clock.
        total_gpu_compute_seconds: sum over samples; more than the walltime with several streams.
        latency: h2d + gpu_compute + d2h; waiting is not in it.
        device_memory_bytes: activations and scratch of one context, plus what the engine itself takes.
    """

    samples: int
    throughput_qps: float
    host_walltime_seconds: float
    total_gpu_compute_seconds: float
    latency: Metric
    enqueue: Metric
    h2d: Metric
    gpu_compute: Metric
    d2h: Metric
    device_memory_bytes: int
    host_memory_bytes: int
    usage: Usage
    shapes: dict[str, tuple[int, ...]]


class BenchmarkView(Value):
    job_id: str
    plan: Digest
    model: Digest
    gpu: str
    runtime: str
    options: BenchmarkOptions
    device: Device
    measurement: Measurement
    times: Digest | None
    layer_profile: Digest | None
    layer_information: Digest | None
    created_at: AwareDatetime

    def summary(self) -> dict[str, Any]:
        """The few figures people compare."""
        return {
            "throughput_qps": self.measurement.throughput_qps,
            "gpu_compute_mean_ms": self.measurement.gpu_compute.mean,
            "latency_p99_ms": self.measurement.latency.percentiles.get("99"),
        }
