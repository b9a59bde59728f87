"""BuilderConfig → IBuilderConfig. Every setter is read back: TensorRT drops what it does not like."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from trtfarm.contract.builder_config import BuilderConfig
from trtfarm.contract.profiles import OptimizationProfile
from trtfarm.errors import OptionUnsupportedError, ProfileInvalidError

# Field of BuilderConfig → builder flag of the same meaning.
_FLAGS = {
    "fp16": "FP16",
    "bf16": "BF16",
    "int8": "INT8",
    "fp8": "FP8",
    "int4": "INT4",
    "tf32": "TF32",
    "version_compatible": "VERSION_COMPATIBLE",
    "exclude_lean_runtime": "EXCLUDE_LEAN_RUNTIME",
    "refit": "REFIT",
    "strip_plan": "STRIP_PLAN",
    "weight_streaming": "WEIGHT_STREAMING",
    "direct_io": "DIRECT_IO",
    "distributive_independence": "DISTRIBUTIVE_INDEPENDENCE",
    "disable_timing_cache": "DISABLE_TIMING_CACHE",
    "disable_compilation_cache": "DISABLE_COMPILATION_CACHE",
    "error_on_timing_cache_miss": "ERROR_ON_TIMING_CACHE_MISS",
    "allow_gpu_fallback": "GPU_FALLBACK",
}

# Field → (attribute of IBuilderConfig, enum of the bindings or None for a plain number).
_ATTRIBUTES = {
    "builder_optimization_level": ("builder_optimization_level", None),
    "avg_timing_iterations": ("avg_timing_iterations", None),
    "max_aux_streams": ("max_aux_streams", None),
    "max_num_tactics": ("max_num_tactics", None),
    "l2_limit_for_tiling": ("l2_limit_for_tiling", None),
    "tiling_optimization_level": ("tiling_optimization_level", "TilingOptimizationLevel"),
    "profiling_verbosity": ("profiling_verbosity", "ProfilingVerbosity"),
    "hardware_compatibility_level": ("hardware_compatibility_level", "HardwareCompatibilityLevel"),
}


def apply(trt: Any, config: Any, wanted: BuilderConfig) -> None:
    """Raises OptionUnsupportedError for the first option that these bindings do not take."""
    # EXCLUDE_LEAN_RUNTIME is taken only after VERSION_COMPATIBLE.
    for field, value in sorted(wanted.canonical().items(), key=lambda item: item[0] != "version_compatible"):
        if field in _FLAGS:
            _set_flag(trt, config, field, value)
        elif field in _ATTRIBUTES:
            _set_attribute(trt, config, field, value)
        elif field in _SETTERS:
            _SETTERS[field](trt, config, value)
        else:
            raise OptionUnsupportedError(f"{field} is not supported by {trt.__name__} {trt.__version__}.")


def add_profiles(builder: Any, config: Any, profiles: tuple[OptimizationProfile, ...]) -> None:
    for number, wanted in enumerate(profiles):
        profile = builder.create_optimization_profile()
        for name, shapes in wanted.root.items():
            try:
                profile.set_shape(name, shapes.min, shapes.opt, shapes.max)
            except (ValueError, RuntimeError) as error:
                raise ProfileInvalidError(f"Profile {number}, input {name!r}: {error}") from error
        if config.add_optimization_profile(profile) < 0:
            raise ProfileInvalidError(f"TensorRT refuses optimization profile {number}.")


def _member(trt: Any, enum: str, name: str, field: str) -> Any:
    member = getattr(getattr(trt, enum, None), name, None)
    if member is None:
        raise OptionUnsupportedError(f"{field}={name} does not exist in {trt.__name__} {trt.__version__}.")
    return member


def _refused(trt: Any, field: str, value: Any, got: Any) -> OptionUnsupportedError:
    return OptionUnsupportedError(
        f"{trt.__name__} {trt.__version__} does not take {field}={value}: it stays {got}."
    )


def _set_flag(trt: Any, config: Any, field: str, value: bool) -> None:
    flag = _member(trt, "BuilderFlag", _FLAGS[field], field)
    (config.set_flag if value else config.clear_flag)(flag)
    if config.get_flag(flag) != value:
        raise _refused(trt, field, value, not value)


def _set_attribute(trt: Any, config: Any, field: str, value: Any) -> None:
    attribute, enum = _ATTRIBUTES[field]
    if not hasattr(config, attribute):
        raise OptionUnsupportedError(f"{field} does not exist in {trt.__name__} {trt.__version__}.")
    if enum is not None:
        members = getattr(trt, enum)
        value = _member(trt, enum, value.upper(), field) if isinstance(value, str) else members(value)
    setattr(config, attribute, value)
    got = getattr(config, attribute)
    if got != value:
        raise _refused(trt, field, value, got)


def _set_pools(trt: Any, config: Any, pools: dict[str, int]) -> None:
    for name, size_bytes in pools.items():
        pool = _member(trt, "MemoryPoolType", name.upper(), "memory_pool_limits")
        config.set_memory_pool_limit(pool, size_bytes)
        got = config.get_memory_pool_limit(pool)
        if got != size_bytes:
            raise _refused(trt, f"memory pool {name}", size_bytes, got)


def _set_tactic_sources(trt: Any, config: Any, sources: dict[str, bool]) -> None:
    mask = config.get_tactic_sources()
    for name, on in sources.items():
        bit = 1 << int(_member(trt, "TacticSource", name, "tactic_sources"))
        mask = mask | bit if on else mask & ~bit
    config.set_tactic_sources(mask)
    if config.get_tactic_sources() != mask:
        raise _refused(trt, "tactic_sources", sources, hex(config.get_tactic_sources()))


def _set_sparsity(trt: Any, config: Any, value: str) -> None:
    if value == "force":
        raise OptionUnsupportedError(
            "sparsity=force rewrites the weights.", hint="Prune the model before exporting; use enable."
        )
    flag = _member(trt, "BuilderFlag", "SPARSE_WEIGHTS", "sparsity")
    (config.set_flag if value == "enable" else config.clear_flag)(flag)


def _set_previews(trt: Any, config: Any, features: dict[str, bool]) -> None:
    for name, on in features.items():
        feature = _member(trt, "PreviewFeature", name, "preview_features")
        config.set_preview_feature(feature, on)
        if config.get_preview_feature(feature) != on:
            raise _refused(trt, f"preview feature {name}", on, not on)


def _elsewhere(trt: Any, config: Any, value: Any) -> None:
    """Belongs to the network or the ONNX parser; see ``builder``."""
    del trt, config, value


_SETTERS: dict[str, Callable[[Any, Any, Any], None]] = {
    "memory_pool_limits": _set_pools,
    "tactic_sources": _set_tactic_sources,
    "sparsity": _set_sparsity,
    "preview_features": _set_previews,
    "native_instance_norm": _elsewhere,
    "strongly_typed": _elsewhere,
}
