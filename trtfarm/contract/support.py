"""What a TensorRT flavour and version cannot honour, known before any worker is asked.

A worker still checks every setting that it makes; this refuses sooner and says more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from trtfarm.contract.builder_config import BuilderConfig
from trtfarm.contract.target import RTX, Runtime
from trtfarm.contract.trtexec_options import spelling_of
from trtfarm.contract.typed import strongly_typed
from trtfarm.errors import OptionUnsupportedError

Numbers = tuple[int, ...]

_TYPED = "Networks are strongly typed there: use --fp16, or put the types into the model."
_BF16 = (
    "Give a model with bf16 tensors, as NVIDIA ModelOpt makes it: "
    "python -m modelopt.onnx.autocast --onnx_path=model.onnx --low_precision_type=bf16."
)
_QUANTIZED = (
    "Give a model with Q/DQ nodes, as NVIDIA ModelOpt makes it (python -m modelopt.onnx.quantization), "
    "and leave the option out."
)
_BEST = "Use --fp16, or give a model with Q/DQ nodes: the types are the model's there."
_NO_SEARCH = "Leave it out: it builds without timing tactics."
_NO_CACHE = "Leave it out: it has no timing cache."
_NO_DLA = "Leave it out: it builds for GPUs only."
_NO_DRIVER = "Build for tensorrt, or leave it out: these builds run without a GPU driver."
_SEARCH_AT_8 = "Leave it out, or use --builderOptimizationLevel."
_NEWER = "Leave it out, or build for a newer TensorRT."


class _Limit(NamedTuple):
    """Versions of tensorrt that know a field: from ``since``, and before ``until``."""

    since: Numbers = ()
    until: Numbers = ()
    alternative: str = _NEWER


_RTX_REFUSES: dict[str, tuple[str, str]] = (
    dict.fromkeys(
        ("precision_constraints", "layer_precisions", "layer_output_types"), ("cannot be set", _TYPED)
    )
    | dict.fromkeys(("int8", "fp8", "int4"), ("cannot be set", _QUANTIZED))
    | {"bf16": ("cannot be set", _BF16), "best": ("cannot be set", _BEST)}
    | dict.fromkeys(("refit", "strip_plan"), ("needs a GPU driver at build time", _NO_DRIVER))
    | dict.fromkeys(
        ("builder_optimization_level", "avg_timing_iterations", "max_num_tactics", "tactic_sources",
         "tiling_optimization_level", "l2_limit_for_tiling"),
        ("has no effect on the plan", _NO_SEARCH),
    )
    | dict.fromkeys(
        ("disable_timing_cache", "disable_compilation_cache", "error_on_timing_cache_miss"),
        ("has no effect on the plan", _NO_CACHE),
    )
    | dict.fromkeys(("use_dla_core", "allow_gpu_fallback"), ("needs a DLA", _NO_DLA))
    | {
        "hardware_compatibility_level": (
            "has no effect on the plan",
            "A plan fits every GPU of its compute capability; choose one with --gpu cc-8.9.",
        )
    }
)  # fmt: skip

_ENTERPRISE: dict[str, _Limit] = (
    dict.fromkeys(
        ("precision_constraints", "layer_precisions", "layer_output_types"),
        _Limit(until=(11,), alternative=_TYPED),
    )
    | dict.fromkeys(("int8", "fp8"), _Limit(until=(11,), alternative=_QUANTIZED))
    | dict.fromkeys(
        ("strongly_typed", "disable_compilation_cache", "error_on_timing_cache_miss"), _Limit((9, 1))
    )
    | dict.fromkeys(("tiling_optimization_level", "l2_limit_for_tiling"), _Limit((10, 8)))
    | {
        "best": _Limit(until=(11,), alternative=_BEST),
        "bf16": _Limit((9, 1), (11,), _BF16),
        "int4": _Limit((10, 1), (11,), _QUANTIZED),
        "strip_plan": _Limit((10,)),
        "weight_streaming": _Limit((10,)),
        "max_num_tactics": _Limit((10, 4), alternative=_SEARCH_AT_8),
        "distributive_independence": _Limit((10, 12)),
    }
)

# Values of fields, by the field and the value.
_ENTERPRISE_VALUES: dict[tuple[str, str], _Limit] = {
    ("hardware_compatibility_level", "same_compute_capability"): _Limit((10, 9)),
    ("memory_pool_limits", "tactic_shared_memory"): _Limit((10,)),
    **{
        ("tactic_sources", name): _Limit(until=(11,), alternative="Leave it out: TensorRT does without it.")
        for name in ("CUBLAS", "CUBLAS_LT", "CUDNN")
    },
    **{
        ("preview_features", name): _Limit(until=(10,), alternative="Leave it out: it is how TensorRT works.")
        for name in ("FASTER_DYNAMIC_SHAPES_0805", "DISABLE_EXTERNAL_TACTIC_SOURCES_FOR_CORE_0805")
    },
    ("preview_features", "PROFILE_SHARING_0806"): _Limit(
        until=(11,), alternative="Leave it out: it is how TensorRT works."
    ),
    ("preview_features", "ALIASED_PLUGIN_IO_10_03"): _Limit((10, 3)),
    ("preview_features", "RUNTIME_ACTIVATION_RESIZE_10_10"): _Limit((10, 10)),
    ("preview_features", "MULTIDEVICE_RUNTIME_10_16"): _Limit((10, 16), (11,), "Leave it out."),
}
_TYPES = {"bf16": _Limit((9, 1)), "int64": _Limit((9, 1)), "int4": _Limit((10, 1))}
_RTX_PREVIEWS = ("ALIASED_PLUGIN_IO_10_03", "RUNTIME_ACTIVATION_RESIZE_10_10")
_RTX_POOLS = ("workspace", "tactic_shared_memory")


def refuse_unsupported(
    config: BuilderConfig, runtime: Runtime, tool: Mapping[str, Any] | None = None
) -> None:
    """Refuses what the runtime cannot honour; without a version, only what no version can.

    ``tool`` is that of ``TrtexecOptions``, where the client has one.

    Raises:
        OptionUnsupportedError: the option in trtexec's spelling, the reason, the alternative.

    """
    asked = config.canonical()
    checks: tuple[Callable[[dict[str, Any], Runtime], Iterator[OptionUnsupportedError]], ...]
    checks = (_rtx,) if runtime.flavour == RTX else (_versions, _enterprise)
    for check in (_anywhere, *checks, _typed_formats, _kept_layers):
        for error in check(asked, runtime):
            raise error
    if runtime.flavour == RTX and tool and "timing_cache_file" in tool:
        raise _refusal("--timingCacheFile", "has no effect", runtime, _NO_CACHE)


def _refusal(option: str, reason: str, runtime: Runtime, alternative: str) -> OptionUnsupportedError:
    return OptionUnsupportedError(
        f"{option} {reason} with {runtime}.", hint=alternative, option=option, runtime=str(runtime)
    )


def _anywhere(asked: dict[str, Any], runtime: Runtime) -> Iterator[OptionUnsupportedError]:
    if asked.get("sparsity") == "force":
        yield _refusal("--sparsity=force", "rewrites the weights; it cannot be used", runtime,
                       "Prune the model before you submit it, and use --sparsity=enable.")  # fmt: skip


def _kept_layers(asked: dict[str, Any], runtime: Runtime) -> Iterator[OptionUnsupportedError]:
    """The converter leaves layers in fp32, and can do nothing else with them."""
    if _converted(asked, runtime):
        for name, kind in asked.get("layer_precisions", {}).items():
            if kind not in {"fp32", "fp16"}:
                yield _refusal(f"--layerPrecisions={name}:{kind}", "cannot be set", runtime,
                               "Use fp32 for layers that --fp16 shall not convert.")  # fmt: skip


def _converted(asked: dict[str, Any], runtime: Runtime) -> bool:
    return "fp16" in asked and strongly_typed(runtime)


def _honoured(field: str, asked: dict[str, Any], runtime: Runtime) -> bool:
    """By the converter, though not by TensorRT."""
    return field in {"precision_constraints", "layer_precisions"} and _converted(asked, runtime)


def _rtx(asked: dict[str, Any], runtime: Runtime) -> Iterator[OptionUnsupportedError]:
    for field in (name for name in asked if name in _RTX_REFUSES and not _honoured(name, asked, runtime)):
        reason, alternative = _RTX_REFUSES[field]
        yield _refusal(spelling_of(field), reason, runtime, alternative)
    if "version_compatible" in asked and "exclude_lean_runtime" not in asked:
        yield _refusal(
            "--versionCompatible", "needs a lean runtime, which is not part of it,", runtime,
            "Add --excludeLeanRuntime, or leave it out.",
        )  # fmt: skip
    for name in asked.get("memory_pool_limits", {}):
        if name not in _RTX_POOLS:
            alternative = _NO_DLA if name.startswith("dla") else _NO_SEARCH
            yield _refusal(f"--memPoolSize of {name}", "has no effect on the plan", runtime, alternative)
    for name in asked.get("preview_features", {}):
        if name not in _RTX_PREVIEWS:
            yield _refusal(f"--preview of {name}", "is not offered", runtime, "Leave it out.")


def _typed_formats(asked: dict[str, Any], runtime: Runtime) -> Iterator[OptionUnsupportedError]:
    """The type half of an I/O format went away with weak typing; before that, trtexec demands it.

    A model that is converted is given the type.
    """
    if runtime.flavour != RTX and not runtime.version:
        return
    typed, converted = strongly_typed(runtime), _converted(asked, runtime)
    for field in ("input_io_formats", "output_io_formats"):
        for text in asked.get(field, ()):
            if typed and not converted and ":" in text:
                bare = text.partition(":")[2]
                yield _refusal(f"{spelling_of(field)}={text}", "cannot set a type", runtime,
                               f"Write {bare}, and put the type into the model, or add --fp16.")  # fmt: skip
            if not typed and ":" not in text:
                yield _refusal(f"{spelling_of(field)}={text}", "needs a type", runtime, f"Write fp32:{text}.")


def _versions(asked: dict[str, Any], runtime: Runtime) -> Iterator[OptionUnsupportedError]:
    found = [
        (spelling_of(field), limit)
        for field, limit in _ENTERPRISE.items()
        if field in asked and not _honoured(field, asked, runtime)
    ]
    for (field, value), limit in _ENTERPRISE_VALUES.items():
        if value == asked.get(field) or (isinstance(asked.get(field), dict) and value in asked[field]):
            found.append((f"{spelling_of(field)} of {value}", limit))
    found += [(f"{option} of {name}", _TYPES[name]) for option, name in _types(asked) if name in _TYPES]
    for option, limit in found if runtime.version else ():
        if runtime.version_numbers < limit.since:
            since = ".".join(map(str, limit.since))
            yield _refusal(
                option, f"needs TensorRT {since} or newer; it cannot be used", runtime, limit.alternative
            )
        if limit.until and runtime.version_numbers >= limit.until:
            until = ".".join(map(str, limit.until))
            yield _refusal(
                option, f"was removed in TensorRT {until}; it cannot be used", runtime, limit.alternative
            )


def _types(asked: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Option and data type, wherever one is named."""
    for field in ("input_io_formats", "output_io_formats"):
        yield from ((spelling_of(field), text.partition(":")[0]) for text in asked.get(field, ()))
    for name in asked.get("layer_precisions", {}).values():
        yield spelling_of("layer_precisions"), name
    for names in asked.get("layer_output_types", {}).values():
        yield from ((spelling_of("layer_output_types"), name) for name in names)


def _enterprise(asked: dict[str, Any], runtime: Runtime) -> Iterator[OptionUnsupportedError]:
    weakly = runtime.version and runtime.version_numbers < (11,) and "strongly_typed" not in asked
    if weakly and "weight_streaming" in asked:
        yield _refusal(
            "--allowWeightStreaming", "needs a strongly typed network", runtime, "Add --stronglyTyped."
        )
