"""Measures a plan on the GPU of this process."""

from __future__ import annotations

import json
import resource
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from trtfarm.contract.benchmark import BenchmarkOptions, Measurement, Metric
from trtfarm.contract.device import Device
from trtfarm.errors import BuildError, ProfileInvalidError
from trtfarm_worker.tensorrt.buffers import Buffers, fill
from trtfarm_worker.tensorrt.cuda import Cuda
from trtfarm_worker.tensorrt.inference import Lane, Sample, measure
from trtfarm_worker.tensorrt.usage import UsageMonitor

_PROFILED_RUNS = 20
OnProgress = Callable[[str, float | None], None]


class PlanRefusedError(BuildError):
    """TensorRT does not load the plan."""

    code = "PLAN_REFUSED"


def benchmark(
    trt: Any,
    logger: Any,
    device: Device,
    plan: Path,
    options: BenchmarkOptions,
    inputs: Mapping[str, Path],
    folder: Path,
    on_progress: OnProgress,
) -> Measurement:
    """Measures; writes ``times.json`` and, with ``layers``, ``profile.json`` and ``layers.json``.

    The files have the form of trtexec's --exportTimes, --exportProfile and --exportLayerInfo.

    Raises:
        PlanRefusedError: the plan is for another GPU or version, or does not fit the memory.
        ProfileInvalidError: the shapes do not fit the plan's profile.
        InvalidRequestError: the files of ``inputs`` do not fit the plan.
        CudaError.
    """
    cuda = Cuda()
    on_progress("loading plan", None)
    free_before, _ = cuda("MemGetInfo")
    runtime = trt.Runtime(logger)
    engine = runtime.deserialize_cuda_engine(plan.read_bytes())
    if engine is None:
        raise PlanRefusedError("TensorRT does not load this plan here; the job's log tells why.")
    contexts = [make_context(engine, cuda, options) for _ in range(options.inf_streams)]
    buffers = [Buffers(trt, cuda, engine, context) for context in contexts]
    try:
        for each in buffers:
            fill(trt, cuda, engine, each, inputs, options.seed)
        free_after, _ = cuda("MemGetInfo")
        on_progress("measuring", None)
        samples, monitor = _run(cuda, device, contexts, buffers, options)
        _write(folder / "times.json", _times(samples))
        if options.layers:
            on_progress("profiling layers", None)
            _write(folder / "profile.json", _profile(trt, cuda, contexts[0]))
            information = engine.create_engine_inspector().get_engine_information(
                trt.LayerInformationFormat.JSON
            )
            (folder / "layers.json").write_text(information)
    finally:
        for each in buffers:
            each.close()
    walltime = (samples[-1].out_end - samples[0].in_start) / 1000
    return _measurement(
        samples,
        options,
        walltime=walltime,
        device_memory=free_before - free_after,
        usage=monitor.usage(len(samples), walltime),
        shapes=buffers[0].shapes,
    )


def _run(
    cuda: Cuda, device: Device, contexts: list[Any], buffers: list[Buffers], options: BenchmarkOptions
) -> tuple[list[Sample], UsageMonitor]:
    lanes = [Lane(cuda, context, each, options) for context, each in zip(contexts, buffers, strict=True)]
    monitor = UsageMonitor(device.uuid)
    try:
        with monitor:
            return measure(cuda, lanes, options, monitor.mark), monitor
    finally:
        for lane in lanes:
            lane.close()


def make_context(engine: Any, cuda: Cuda, options: BenchmarkOptions) -> Any:
    context = engine.create_execution_context()
    if context is None:
        raise PlanRefusedError("There is not enough GPU memory for an execution context.")
    if options.use_profile:
        stream = cuda("StreamCreate")
        ok = context.set_optimization_profile_async(options.use_profile, int(stream))
        cuda("StreamSynchronize", stream)
        cuda("StreamDestroy", stream)
        if not ok:
            raise ProfileInvalidError(f"The plan has no optimization profile {options.use_profile}.")
    for name, shape in _input_shapes(engine, options).items():
        if not context.set_input_shape(name, shape):
            raise ProfileInvalidError(f"{name}:{'x'.join(map(str, shape))} is outside of the profile.")
    return context


def _input_shapes(engine: Any, options: BenchmarkOptions) -> dict[str, tuple[int, ...]]:
    """Shapes of the dynamic inputs: as asked for, else the profile's optimum."""
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    unknown = sorted(set(options.shapes) - set(names))
    if unknown:
        raise ProfileInvalidError(
            f"The plan has no input {unknown[0]!r}.", hint=f"It has: {', '.join(names)}."
        )
    shapes = dict(options.shapes)
    for name in names:
        if name in shapes or -1 not in tuple(engine.get_tensor_shape(name)):
            continue
        if engine.get_tensor_mode(name).name == "INPUT":
            _, optimum, _ = engine.get_tensor_profile_shape(name, options.use_profile)
            shapes[name] = tuple(optimum)
    return shapes


def _measurement(
    samples: Sequence[Sample],
    options: BenchmarkOptions,
    *,
    walltime: float,
    device_memory: int,
    usage: Any,
    shapes: dict[str, tuple[int, ...]],
) -> Measurement:
    def metric(pick: Callable[[Sample], float]) -> Metric:
        return Metric.of([pick(sample) for sample in samples], options.percentiles)

    compute = metric(lambda sample: sample.compute)
    return Measurement(
        samples=len(samples),
        throughput_qps=len(samples) / walltime,
        host_walltime_seconds=walltime,
        total_gpu_compute_seconds=compute.mean * len(samples) / 1000,
        latency=metric(lambda sample: sample.latency),
        enqueue=metric(lambda sample: sample.enqueue_end - sample.enqueue_start),
        h2d=metric(lambda sample: sample.h2d),
        gpu_compute=compute,
        d2h=metric(lambda sample: sample.d2h),
        device_memory_bytes=device_memory,
        host_memory_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        usage=usage,
        shapes=shapes,
    )


def _times(samples: Sequence[Sample]) -> list[dict[str, float]]:
    """Trtexec's --exportTimes, milliseconds."""
    return [
        {
            "startEnqMs": s.enqueue_start,
            "endEnqMs": s.enqueue_end,
            "startH2dMs": s.in_start,
            "endH2dMs": s.in_end,
            "startComputeMs": s.compute_start,
            "endComputeMs": s.compute_end,
            "startD2hMs": s.out_start,
            "endD2hMs": s.out_end,
            "h2dMs": s.h2d,
            "computeMs": s.compute,
            "d2hMs": s.d2h,
            "latencyMs": s.latency,
        }
        for s in samples
    ]


def _profile(trt: Any, cuda: Cuda, context: Any) -> list[dict[str, Any]]:
    """Trtexec's --exportProfile: a count, then milliseconds by layer; measured in a run of its own."""

    class Profiler(trt.IProfiler):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProfiler.__init__(self)
            self.layers: dict[str, list[float]] = {}

        def report_layer_time(self, layer_name: str, ms: float) -> None:
            self.layers.setdefault(layer_name, []).append(ms)

    profiler, stream = Profiler(), cuda("StreamCreate")
    context.profiler = profiler
    context.enqueue_emits_profile = False
    for _ in range(_PROFILED_RUNS):
        context.execute_async_v3(int(stream))
        cuda("StreamSynchronize", stream)
        context.report_to_profiler()
    cuda("StreamDestroy", stream)
    total = sum(map(sum, profiler.layers.values())) or 1.0
    layers = [
        {
            "name": name,
            "timeMs": sum(times),
            "averageMs": sum(times) / len(times),
            "medianMs": sorted(times)[len(times) // 2],
            "percentage": 100 * sum(times) / total,
        }
        for name, times in profiler.layers.items()
    ]
    return [{"count": _PROFILED_RUNS}, *layers]


def _write(path: Path, document: Any) -> None:
    path.write_text(json.dumps(document))
