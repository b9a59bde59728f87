"""trtexec's build options that the farm honours."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from trtfarm.contract import trtexec_values as values


class Option(NamedTuple):
    """One spelling.

    Attributes:
        metavar: the grammar of its value; empty for a switch.
        group: heading in a help text.
        fields: of ``BuilderConfig`` (or, in the group *tool*, names of its own) that it sets.
        read: value → fields; raises ``ValueError`` with the reason.

    """

    spelling: str
    metavar: str
    help: str
    group: str
    fields: tuple[str, ...] = ()
    read: Callable[[str], Mapping[str, Any]] = lambda _: {}


def _switch(spelling: str, text: str, group: str, *fields: str, to: bool = True) -> Option:
    return Option(spelling, "", text, group, fields, lambda _: dict.fromkeys(fields, to))


def _value(
    spelling: str, metavar: str, text: str, group: str, field: str, read: Callable[[str], Any]
) -> Option:
    return Option(spelling, metavar, text, group, (field,), lambda value: {field: read(value)})


SHAPES = "name:1x3x224x224[,name:…]"
PROFILE = "profiles"
TOOL = "tool"
_LEVELS = {
    "none": "none",
    "ampere+": "ampere_plus",
    "sameComputeCapability": "same_compute_capability",
}
_VERBOSITIES = {
    "layer_names_only": "layer_names_only",
    "detailed": "detailed",
    "none": "none",
    "default": "layer_names_only",  # the last two are trtexec's older spellings
    "verbose": "detailed",
}
_SOURCES = {
    name: name for name in ("CUBLAS", "CUBLAS_LT", "CUDNN", "EDGE_MASK_CONVOLUTIONS", "JIT_CONVOLUTIONS")
}
_PREVIEWS = {
    "fasterDynamicShapes0805": "FASTER_DYNAMIC_SHAPES_0805",
    "disableExternalTacticSourcesForCore0805": "DISABLE_EXTERNAL_TACTIC_SOURCES_FOR_CORE_0805",
    "profileSharing0806": "PROFILE_SHARING_0806",
    "aliasedPluginIO1003": "ALIASED_PLUGIN_IO_10_03",
    "runtimeActivationResize": "RUNTIME_ACTIVATION_RESIZE_10_10",
    "multiDeviceRuntime": "MULTIDEVICE_RUNTIME_10_16",
}

_PROFILES = (
    Option("--minShapes", SHAPES, "smallest shapes of the dynamic inputs", PROFILE),
    Option("--optShapes", SHAPES, "shapes to optimise for", PROFILE),
    Option("--maxShapes", SHAPES, "largest shapes; what is missing is taken from what is given", PROFILE),
    Option("--shapes", SHAPES, "minimum, optimum and maximum at once", PROFILE),
    Option("--profile", "N", "the min, opt and max right after it are of profile N, from 0", PROFILE),
)

_PRECISION = (
    _switch("--fp16", "allow fp16 beside fp32", "precision", "fp16"),
    _switch("--bf16", "allow bf16 beside fp32", "precision", "bf16"),
    _switch("--int8", "allow int8 beside fp32", "precision", "int8"),
    _switch("--fp8", "allow fp8 beside fp32", "precision", "fp8"),
    _switch("--int4", "allow int4 beside fp32", "precision", "int4"),
    _switch("--best", "allow every precision", "precision", "best"),
    _switch("--noTF32", "do not compute fp32 as TF32", "precision", "tf32", to=False),
    _switch("--stronglyTyped", "take all types from the model", "precision", "strongly_typed"),
    _value("--precisionConstraints", "none|obey|prefer", "how to take the two options below", "precision",
           "precision_constraints", values.words("none", "obey", "prefer")),
    _value("--layerPrecisions", "layer:type[,layer:…]", "precision of single layers", "precision",
           "layer_precisions", values.layer_types),
    _value("--layerOutputTypes", "layer:type[+type][,layer:…]", "output types of single layers", "precision",
           "layer_output_types", values.layer_output_types),
)  # fmt: skip

_SEARCH = (
    _value("--builderOptimizationLevel", "0..5", "how long to search for fast tactics", "search",
           "builder_optimization_level", values.whole(0, 5)),
    _value("--avgTiming", "N", "timings to average for each tactic (trtexec itself: 8)", "search",
           "avg_timing_iterations", values.whole(1)),
    _value("--maxTactics", "N", "time at most so many tactics; -1: TensorRT decides", "search",
           "max_num_tactics", values.whole(1, unset=-1)),
    _value("--tacticSources", "+NAME|-NAME[,…]", "tactic sources to add or leave out", "search",
           "tactic_sources", values.switches(_SOURCES)),
    _value("--tilingOptimizationLevel", "0..3", "how hard to tile", "search",
           "tiling_optimization_level", values.whole(0, 3)),
    _value("--l2LimitForTiling", "BYTES", "L2 cache for tiling; -1: TensorRT decides", "search",
           "l2_limit_for_tiling", values.whole(0, unset=-1)),
    _value("--sparsity", "disable|enable", "tactics for structured sparsity", "search",
           "sparsity", values.words("disable", "enable", "force")),
    _value("--maxAuxStreams", "N", "auxiliary streams at most; -1: TensorRT decides", "search",
           "max_aux_streams", values.whole(0, unset=-1)),
    _switch("--distributiveIndependence", "results do not depend on the batch a row is in", "search",
            "distributive_independence"),
    _value("--preview", "+NAME|-NAME[,…]", "preview features on or off", "search",
           "preview_features", values.switches(_PREVIEWS)),
)  # fmt: skip

_FORMATS = (
    _value("--inputIOFormats", "[type:]format[+format][,…]", "formats of the inputs", "formats",
           "input_io_formats", values.io_formats),
    _value("--outputIOFormats", "[type:]format[+format][,…]", "formats of the outputs", "formats",
           "output_io_formats", values.io_formats),
    _switch("--directIO", "no reformatting at inputs and outputs", "formats", "direct_io"),
    _switch("--pluginInstanceNorm", "InstanceNorm by plugin", "formats", "native_instance_norm", to=False),
    _switch("--pi", "the same as --pluginInstanceNorm", "formats", "native_instance_norm", to=False),
)  # fmt: skip

_MEMORY = (
    _value("--memPoolSize", "pool:size[B|K|M|G][,…]", f"limits in MiB: {', '.join(values.POOLS)}",
           "memory", "memory_pool_limits", values.pools),
    _switch("--allowWeightStreaming", "weights may stay in host memory", "memory", "weight_streaming"),
)  # fmt: skip

_PLAN = (
    _switch("--refit", "weights can be changed later", "plan", "refit"),
    _switch("--stripWeights", "a plan without weights", "plan", "strip_plan"),
    _switch("--stripAllWeights", "--refit and --stripWeights", "plan", "refit", "strip_plan"),
    _switch("--weightless", "older spelling of --stripWeights", "plan", "strip_plan"),
    _switch("--versionCompatible", "runs on later TensorRT versions too", "plan", "version_compatible"),
    _switch("--vc", "the same as --versionCompatible", "plan", "version_compatible"),
    _switch("--excludeLeanRuntime", "a version-compatible plan without its runtime", "plan",
            "exclude_lean_runtime"),
    _value("--hardwareCompatibilityLevel", "none|ampere+|sameComputeCapability", "GPUs that the plan fits",
           "plan", "hardware_compatibility_level", values.choice(_LEVELS)),
    _value("--profilingVerbosity", "layer_names_only|detailed|none", "what it says of its layers", "plan",
           "profiling_verbosity", values.choice(_VERBOSITIES)),
)  # fmt: skip

_CACHES = (
    _switch("--noBuilderCache", "no timing cache at all", "caches", "disable_timing_cache"),
    _switch("--noCompilationCache", "no cache of compiled kernels", "caches", "disable_compilation_cache"),
    _switch("--errorOnTimingCacheMiss", "fail rather than time a tactic", "caches",
            "error_on_timing_cache_miss"),
)  # fmt: skip

_DLA = (
    _value("--useDLACore", "N", "build for a deep learning accelerator; -1: none", "DLA",
           "use_dla_core", values.whole(0, unset=-1)),
    _switch("--allowGPUFallback", "layers that DLA cannot run go to the GPU", "DLA", "allow_gpu_fallback"),
)  # fmt: skip

_TOOL = (
    _value("--saveEngine", "PATH", "write the plan there", TOOL, "save_engine", str),
    _value("--timingCacheFile", "PATH", "start from this timing cache, and keep it up to date", TOOL,
           "timing_cache_file", str),
    _switch("--verbose", "TensorRT's whole log", TOOL, "verbose"),
    _switch("--skipInference", "build only; the farm's builds never run inference", TOOL, "skip_inference"),
    _switch("--buildOnly", "older spelling of --skipInference", TOOL, "skip_inference"),
)  # fmt: skip

OPTIONS = (*_PROFILES, *_PRECISION, *_SEARCH, *_FORMATS, *_MEMORY, *_PLAN, *_CACHES, *_DLA, *_TOOL)


def spelling_of(field: str) -> str:
    """What people write for a field of ``BuilderConfig``; the field itself if there is no option."""
    return next((option.spelling for option in OPTIONS if field in option.fields), field)
