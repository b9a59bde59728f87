"""BuilderConfig → TensorRT: every field is applied and read back, or refused by name."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from trtfarm.contract.builder_config import BuilderConfig
from trtfarm_worker.tensorrt import bindings, dla, io_formats, precision
from trtfarm_worker.tensorrt.readback import Setup, assign, assign_flag, check, member, unsupported

Setter = Callable[[Setup, Any], None]

# Field of BuilderConfig → builder flag of the same meaning.
FLAGS = {
    "fp16": "FP16",
    "bf16": "BF16",
    "fp8": "FP8",
    "int4": "INT4",
    "tf32": "TF32",
    "version_compatible": "VERSION_COMPATIBLE",
    "exclude_lean_runtime": "EXCLUDE_LEAN_RUNTIME",
    "refit": "REFIT",
    "strip_plan": "STRIP_PLAN",
    "direct_io": "DIRECT_IO",
    "distributive_independence": "DISTRIBUTIVE_INDEPENDENCE",
    "disable_timing_cache": "DISABLE_TIMING_CACHE",
    "disable_compilation_cache": "DISABLE_COMPILATION_CACHE",
    "error_on_timing_cache_miss": "ERROR_ON_TIMING_CACHE_MISS",
}

# Field → enum of the bindings, or None for a plain number. The attribute of IBuilderConfig has its name.
ATTRIBUTES = {
    "builder_optimization_level": None,
    "avg_timing_iterations": None,
    "max_aux_streams": None,
    "max_num_tactics": None,
    "l2_limit_for_tiling": None,
    "tiling_optimization_level": "TilingOptimizationLevel",
    "profiling_verbosity": "ProfilingVerbosity",
    "hardware_compatibility_level": "HardwareCompatibilityLevel",
}
_TILING_LEVELS = ("NONE", "FAST", "MODERATE", "FULL")


def prepare_parser(trt: Any, parser: Any, wanted: BuilderConfig) -> None:
    """What must be set before a model is parsed."""
    if wanted.native_instance_norm is not None:
        field = "native_instance_norm"
        flag = member(trt, "OnnxParserFlag", "NATIVE_INSTANCENORM", field)
        assign_flag(trt, parser, flag, wanted.native_instance_norm, field)


def apply(setup: Setup, wanted: BuilderConfig) -> None:
    """All of ``wanted``.

    Raises:
        OptionUnsupportedError: an option that these bindings, or this machine, do not take.
        InvalidRequestError: one that does not fit the network.
    """
    # EXCLUDE_LEAN_RUNTIME is taken only after VERSION_COMPATIBLE.
    for field, value in sorted(wanted.canonical().items(), key=lambda item: item[0] != "version_compatible"):
        SETTERS[field](setup, value)


def _set_flag(setup: Setup, value: bool, *, field: str) -> None:
    flag = member(setup.trt, "BuilderFlag", FLAGS[field], field)
    assign_flag(setup.trt, setup.config, flag, value, field)


def _set_attribute(setup: Setup, value: Any, *, field: str) -> None:
    if (enum := ATTRIBUTES[field]) is not None:
        name = value.upper() if isinstance(value, str) else _TILING_LEVELS[value]
        value = member(setup.trt, enum, name, field)
    assign(setup.trt, setup.config, field, value, field)


def _set_pools(setup: Setup, pools: dict[str, int]) -> None:
    trt, config, field = setup.trt, setup.config, "memory_pool_limits"
    for name, size_bytes in pools.items():
        if name.startswith("dla"):
            dla.require(setup, field)
        pool = member(trt, "MemoryPoolType", name.upper(), field)
        config.set_memory_pool_limit(pool, size_bytes)
        check(trt, field, f"{name}:{size_bytes}", f"{name}:{config.get_memory_pool_limit(pool)}")


def _set_tactic_sources(setup: Setup, sources: dict[str, bool]) -> None:
    trt, config, field = setup.trt, setup.config, "tactic_sources"
    mask = config.get_tactic_sources()
    for name, on in sources.items():
        bit = 1 << int(member(trt, "TacticSource", name, field))
        mask = mask | bit if on else mask & ~bit
    config.set_tactic_sources(mask)
    check(trt, field, bin(mask), bin(config.get_tactic_sources()))


def _set_sparsity(setup: Setup, value: str) -> None:
    if value == "force":
        hint = "Prune the model before exporting; use enable."
        raise unsupported(setup.trt, "sparsity", "of force rewrites the weights; it cannot be used", hint)
    flag = member(setup.trt, "BuilderFlag", "SPARSE_WEIGHTS", "sparsity")
    assign_flag(setup.trt, setup.config, flag, value == "enable", "sparsity")


def _set_previews(setup: Setup, features: dict[str, bool]) -> None:
    trt, config, field = setup.trt, setup.config, "preview_features"
    for name, on in features.items():
        feature = member(trt, "PreviewFeature", name, field)
        config.set_preview_feature(feature, on)
        check(trt, field, f"{name}:{on}", f"{name}:{config.get_preview_feature(feature)}")


def _set_weight_streaming(setup: Setup, value: bool) -> None:
    flag = member(setup.trt, "BuilderFlag", "WEIGHT_STREAMING", "weight_streaming")
    if not bindings.is_strongly_typed(setup.trt, setup.network):
        hint = "Add --stronglyTyped."
        raise unsupported(setup.trt, "weight_streaming", "needs a strongly typed network", hint)
    assign_flag(setup.trt, setup.config, flag, value, "weight_streaming")


def _check_typing(setup: Setup, value: bool) -> None:
    """The network was made for it; see ``bindings.network_flags``."""
    if bindings.is_strongly_typed(setup.trt, setup.network) != value:
        raise unsupported(setup.trt, "strongly_typed", "cannot be set")


def _already_set(setup: Setup, value: Any) -> None:
    """By ``prepare_parser``."""
    del setup, value


SETTERS: dict[str, Setter] = (
    {field: partial(_set_flag, field=field) for field in FLAGS}
    | {field: partial(_set_attribute, field=field) for field in ATTRIBUTES}
    | {
        "int8": precision.set_int8,
        "best": precision.set_best,
        "precision_constraints": precision.set_constraints,
        "layer_precisions": precision.set_layer_precisions,
        "layer_output_types": precision.set_layer_output_types,
        "strongly_typed": _check_typing,
        "sparsity": _set_sparsity,
        "memory_pool_limits": _set_pools,
        "tactic_sources": _set_tactic_sources,
        "preview_features": _set_previews,
        "weight_streaming": _set_weight_streaming,
        "native_instance_norm": _already_set,
        "input_io_formats": io_formats.set_inputs,
        "output_io_formats": io_formats.set_outputs,
        "use_dla_core": dla.set_core,
        "allow_gpu_fallback": dla.set_gpu_fallback,
    }
)
