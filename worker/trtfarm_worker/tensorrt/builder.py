"""One build: ONNX file → plan file and its I/O description."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from trtfarm.contract.benchmark import Measurement
from trtfarm.contract.spec import BuildSpec
from trtfarm.contract.support import refuse_unsupported
from trtfarm.contract.target import Runtime
from trtfarm.contract.typed import left_to_tensorrt
from trtfarm.contract.v1 import ErrorView
from trtfarm.errors import BuildError, OptionUnsupportedError, TargetUnavailableError
from trtfarm_worker.child.protocol import BenchmarkRequest, BuildRequest, CacheReport, CombineRequest
from trtfarm_worker.tensorrt import bindings, diagnostics, options
from trtfarm_worker.tensorrt.profiles import add_profiles
from trtfarm_worker.tensorrt.progress import make_monitor
from trtfarm_worker.tensorrt.readback import Setup
from trtfarm_worker.tensorrt.timing_cache import TimingCache, combine

_NUMPY_NAMES = {"FLOAT": "float32", "HALF": "float16", "BF16": "bfloat16"}
OnProgress = Callable[[str, float | None], None]


class BuildRefusedError(BuildError):
    """TensorRT refused; ``view`` is its account."""

    def __init__(self, view: ErrorView) -> None:
        super().__init__(view.message)
        self.view = view


class EngineBuilder:
    """Builds engines in this process, one at a time. The library stays loaded between builds."""

    def __init__(self, trt: Any, runtime: Runtime) -> None:
        self._trt = trt
        self._runtime = runtime
        self._capabilities = bindings.capabilities(trt)
        self.log = diagnostics.Log()
        self._logger = diagnostics.make_logger(trt, self.log)
        # The first builder of a process takes about ten seconds on a GPU: no job shall wait for it.
        trt.Builder(self._logger)

    @property
    def gpus(self) -> tuple[str, ...]:
        """Targets of ahead-of-time builds: ``cc-8.9`` …"""
        return tuple(self._capabilities)

    def build(self, request: BuildRequest, on_progress: OnProgress) -> tuple[float, CacheReport | None]:
        """Writes the files the request names.

        Returns the seconds from parsing to the plan in memory, and what the timing cache did.

        Raises:
            BuildRefusedError: TensorRT's parser or builder refused the model.
            OptionUnsupportedError, ProfileInvalidError, TargetUnavailableError: the spec asks for what
                these bindings do not do.
        """
        self._check_target(request.spec)
        spec, trt, started = request.spec, self._trt, time.monotonic()
        builder = trt.Builder(self._logger)
        network = builder.create_network(
            bindings.network_flags(trt, strongly_typed=bool(spec.config.strongly_typed))
        )
        on_progress("parsing", None)
        self._parse(network, spec, Path(request.model_path))
        config = builder.create_builder_config()
        options.apply(Setup(trt, builder, network, config), left_to_tensorrt(spec.config, spec.converter))
        add_profiles(builder, config, spec.profiles)
        self._set_capability(config, spec)
        cache = self._timing_cache(config, request)
        monitor = make_monitor(trt, on_progress)
        if monitor is not None:
            config.progress_monitor = monitor
        on_progress("building", None)
        serialized = builder.build_serialized_network(network, config)
        seconds = time.monotonic() - started
        if serialized is None:
            raise BuildRefusedError(_converted(diagnostics.build_error(self.log.errors), spec))
        on_progress("writing", None)
        Path(request.plan_path).write_bytes(serialized)
        Path(request.io_path).write_text(json.dumps(describe(network, spec), indent=1))
        report = cache.save(Path(request.timing_cache_out)) if cache and request.timing_cache_out else None
        return seconds, report

    def combine(self, request: CombineRequest) -> bool:
        """Writes the combined timing cache; False if TensorRT finds the two incompatible."""
        builder = self._trt.Builder(self._logger)
        return combine(builder, Path(request.base), Path(request.addition), Path(request.destination))

    def benchmark(self, request: BenchmarkRequest, on_progress: OnProgress) -> Measurement:
        """See ``benchmark.benchmark``."""
        from trtfarm_worker.tensorrt.benchmark import benchmark

        return benchmark(
            self._trt,
            self._logger,
            request.device,
            Path(request.plan_path),
            request.options,
            {name: Path(path) for name, path in request.input_paths.items()},
            Path(request.folder),
            on_progress,
        )

    @staticmethod
    def _timing_cache(config: Any, request: BuildRequest) -> TimingCache | None:
        if request.timing_cache_out is None:
            return None
        return TimingCache(config, Path(request.timing_cache_in) if request.timing_cache_in else None)

    def _check_target(self, spec: BuildSpec) -> None:
        if spec.target.runtime != str(self._runtime):
            raise TargetUnavailableError(f"This worker has {self._runtime}, not {spec.target.runtime}.")
        refuse_unsupported(spec.config, self._runtime)
        if spec.plugins or spec.calibration:
            raise OptionUnsupportedError("Plugins and calibration data are not supported yet.")

    def _parse(self, network: Any, spec: BuildSpec, model: Path) -> None:
        parser = self._trt.OnnxParser(network, self._logger)
        options.prepare_parser(self._trt, parser, spec.config)
        if not parser.parse_from_file(str(model)):
            raise BuildRefusedError(_converted(diagnostics.parser_error(parser, model), spec))

    def _set_capability(self, config: Any, spec: BuildSpec) -> None:
        if not self._capabilities:
            return  # builds for the GPU it sits on
        member = self._capabilities.get(spec.target.gpu)
        if member is None:
            raise TargetUnavailableError(
                f"{self._runtime} does not build for {spec.target.gpu}.",
                hint=f"It builds for: {', '.join(self._capabilities)}.",
            )
        config.num_compute_capabilities = 1
        config.set_compute_capability(member, 0)
        if config.get_compute_capability(0) != member:
            raise TargetUnavailableError(f"{self._runtime} refuses the target {spec.target.gpu}.")


def _converted(view: ErrorView, spec: BuildSpec) -> ErrorView:
    """Says of a refused model that it is not the one that was submitted."""
    if spec.converter is None:
        return view
    told = f"It was converted to fp16 first, by {spec.converter}: try without --fp16, or convert it yourself."
    return view.model_copy(update={"hint": f"{view.hint} {told}" if view.hint else told})


def describe(network: Any, spec: BuildSpec) -> dict[str, Any]:
    """Inputs and outputs as the network declares them: a plan cannot be asked without its GPU.

    ``shape`` has -1 for dimensions that are known only at run time.
    """

    def tensor(item: Any) -> dict[str, Any]:
        shape = [-1] if len(item.shape) < 0 else list(item.shape)
        dtype = _NUMPY_NAMES.get(item.dtype.name, item.dtype.name.lower())
        return {"name": item.name, "dtype": dtype, "shape": shape}

    return {
        "inputs": [tensor(network.get_input(index)) for index in range(network.num_inputs)],
        "outputs": [tensor(network.get_output(index)) for index in range(network.num_outputs)],
        "profiles": [profile.model_dump(mode="json") for profile in spec.profiles],
        "target": spec.target.model_dump(mode="json"),
        "layers": network.num_layers,
    }
