"""One build: ONNX file → plan file and its I/O description."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from trtfarm.contract.spec import BuildSpec
from trtfarm.contract.target import Runtime
from trtfarm.contract.v1 import ErrorView
from trtfarm.errors import BuildError, OptionUnsupportedError, TargetUnavailableError
from trtfarm_worker.tensorrt import bindings, diagnostics, options
from trtfarm_worker.tensorrt.progress import make_monitor

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

    @property
    def gpus(self) -> tuple[str, ...]:
        """Targets of ahead-of-time builds: ``cc-8.9`` …"""
        return tuple(self._capabilities)

    def build(self, spec: BuildSpec, model: Path, plan: Path, io: Path, on_progress: OnProgress) -> float:
        """Writes ``plan`` and ``io``; returns the seconds from parsing to the plan in memory.

        Raises:
            BuildRefusedError: TensorRT's parser or builder refused the model.
            OptionUnsupportedError, ProfileInvalidError, TargetUnavailableError: the spec asks for what
                these bindings do not do.
        """
        self._check_target(spec)
        trt, started = self._trt, time.monotonic()
        builder = trt.Builder(self._logger)
        network = builder.create_network(
            bindings.network_flags(trt, strongly_typed=bool(spec.config.strongly_typed))
        )
        on_progress("parsing", None)
        self._parse(network, spec, model)
        config = builder.create_builder_config()
        options.apply(trt, config, spec.config)
        options.add_profiles(builder, config, spec.profiles)
        self._set_capability(config, spec)
        monitor = make_monitor(trt, on_progress)
        if monitor is not None:
            config.progress_monitor = monitor
        on_progress("building", None)
        serialized = builder.build_serialized_network(network, config)
        seconds = time.monotonic() - started
        if serialized is None:
            raise BuildRefusedError(diagnostics.build_error(self.log.errors))
        on_progress("writing", None)
        plan.write_bytes(serialized)
        io.write_text(json.dumps(describe(network, spec), indent=1))
        return seconds

    def _check_target(self, spec: BuildSpec) -> None:
        if spec.target.runtime != str(self._runtime):
            raise TargetUnavailableError(f"This worker has {self._runtime}, not {spec.target.runtime}.")
        if spec.plugins or spec.calibration:
            raise OptionUnsupportedError("Plugins and calibration data are not supported yet.")

    def _parse(self, network: Any, spec: BuildSpec, model: Path) -> None:
        parser = self._trt.OnnxParser(network, self._logger)
        if spec.config.native_instance_norm is not None:
            flag = self._trt.OnnxParserFlag.NATIVE_INSTANCENORM
            wanted = spec.config.native_instance_norm
            (parser.set_flag if wanted else parser.clear_flag)(flag)
        if not parser.parse_from_file(str(model)):
            raise BuildRefusedError(diagnostics.parser_error(parser))

    def _set_capability(self, config: Any, spec: BuildSpec) -> None:
        if not self._capabilities:
            return
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
