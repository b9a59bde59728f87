"""What to ask of TensorRT's builder, in the words of ``IBuilderConfig`` and trtexec."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import AfterValidator, Field, ValidationInfo, field_validator, model_validator

from trtfarm.contract.value import NO_NUL, Value, canonical_json
from trtfarm.errors import InvalidRequestError

MemoryPool = Literal[
    "workspace",
    "tactic_shared_memory",
    "dla_managed_sram",
    "dla_local_dram",
    "dla_global_dram",
    "tactic_dram",
]
TacticSource = Literal["CUBLAS", "CUBLAS_LT", "CUDNN", "EDGE_MASK_CONVOLUTIONS", "JIT_CONVOLUTIONS"]
PreviewFeature = Literal[
    "FASTER_DYNAMIC_SHAPES_0805",
    "DISABLE_EXTERNAL_TACTIC_SOURCES_FOR_CORE_0805",
    "PROFILE_SHARING_0806",
    "ALIASED_PLUGIN_IO_10_03",
    "RUNTIME_ACTIVATION_RESIZE_10_10",
    "MULTIDEVICE_RUNTIME_10_16",
]
Sparsity = Literal["disable", "enable", "force"]
ProfilingVerbosity = Literal["layer_names_only", "detailed", "none"]
HardwareCompatibilityLevel = Literal["none", "ampere_plus", "same_compute_capability"]
PrecisionConstraints = Literal["none", "obey", "prefer"]
DataType = Literal["fp32", "fp16", "bf16", "int8", "fp8", "int32", "int64", "bool", "uint8", "int4"]
DATA_TYPES: tuple[str, ...] = get_args(DataType)
TENSOR_FORMATS = (
    *("chw", "chw2", "chw4", "chw16", "chw32", "hwc", "hwc8", "hwc16"),
    *("dhwc", "dhwc8", "cdhw32", "dla_linear", "dla_hwc4"),
)
_ONE_FORMAT = f"(?:{'|'.join(TENSOR_FORMATS)})"
_IO_FORMAT = re.compile(rf"(?:(?:{'|'.join(DATA_TYPES)}):)?{_ONE_FORMAT}(?:\+{_ONE_FORMAT})*")


def _sorted(items: dict[str, Any]) -> dict[str, Any]:
    return dict(sorted(items.items()))


def _io_format(text: str) -> str:
    if not _IO_FORMAT.fullmatch(text):
        raise ValueError(f"{text[:80]!r} is not an I/O format: [type:]format[+format], as fp16:chw+hwc8")
    return text


Sorted = AfterValidator(_sorted)
IOFormat = Annotated[str, AfterValidator(_io_format)]
Count = Annotated[int, Field(ge=0, lt=2**31)]
Bytes = Annotated[int, Field(ge=0, lt=2**63)]
LayerName = Annotated[str, Field(min_length=1, pattern=NO_NUL)]
OutputTypes = Annotated[tuple[DataType, ...], Field(min_length=1)]

# Asking for one of these is the same as not asking, whatever the TensorRT version.
_DEFAULTS: dict[str, Any] = {
    "tf32": True,
    "sparsity": "disable",
    "profiling_verbosity": "layer_names_only",
    "hardware_compatibility_level": "none",
    "precision_constraints": "none",
    "tiling_optimization_level": 0,
}
_ON_BY_DEFAULT = ("tf32", "native_instance_norm")  # the other switches are off


class BuilderConfig(Value):
    """What differs from TensorRT's own defaults. ``None`` is the default, and so is a default spelt out.

    Two configs that ask for the same build are equal, and their canonical form has only what was
    asked for: fields added later change no build key.

    Attributes:
        best: every precision that the GPU has.
        tf32: False for ``--noTF32``.
        builder_optimization_level: how long the builder may search.
        memory_pool_limits: bytes.
        tactic_sources: on or off; those not named stay as TensorRT has them.
        avg_timing_iterations: trtexec always asks for 8, TensorRT's default is 1.
        l2_limit_for_tiling: bytes.
        native_instance_norm: False for ``--pluginInstanceNorm``.
        input_io_formats: one for all inputs, or one for each in the model's order, as ``fp16:chw``
            (``chw`` where networks are strongly typed). The same for outputs.
        layer_precisions: by layer name; a name may have one ``*``, an exact name goes first.
        preview_features: by the name in ``PreviewFeature``.

    Raises:
        InvalidRequestError: fields that exclude one another.

    """

    fp16: bool | None = None
    bf16: bool | None = None
    int8: bool | None = None
    fp8: bool | None = None
    int4: bool | None = None
    best: bool | None = None
    tf32: bool | None = None
    strongly_typed: bool | None = None
    sparsity: Sparsity | None = None
    builder_optimization_level: Annotated[int, Field(ge=0, le=5)] | None = None
    memory_pool_limits: Annotated[dict[MemoryPool, Bytes], Sorted] | None = None
    tactic_sources: Annotated[dict[TacticSource, bool], Sorted] | None = None
    avg_timing_iterations: Annotated[int, Field(ge=1, lt=2**31)] | None = None
    max_aux_streams: Count | None = None
    max_num_tactics: Annotated[int, Field(ge=1, lt=2**31)] | None = None
    tiling_optimization_level: Annotated[int, Field(ge=0, le=3)] | None = None
    l2_limit_for_tiling: Bytes | None = None
    profiling_verbosity: ProfilingVerbosity | None = None
    hardware_compatibility_level: HardwareCompatibilityLevel | None = None
    version_compatible: bool | None = None
    exclude_lean_runtime: bool | None = None
    refit: bool | None = None
    strip_plan: bool | None = None
    weight_streaming: bool | None = None
    direct_io: bool | None = None
    distributive_independence: bool | None = None
    disable_timing_cache: bool | None = None
    disable_compilation_cache: bool | None = None
    error_on_timing_cache_miss: bool | None = None
    preview_features: Annotated[dict[PreviewFeature, bool], Sorted] | None = None
    native_instance_norm: bool | None = None
    input_io_formats: tuple[IOFormat, ...] | None = None
    output_io_formats: tuple[IOFormat, ...] | None = None
    precision_constraints: PrecisionConstraints | None = None
    layer_precisions: Annotated[dict[LayerName, DataType], Sorted] | None = None
    layer_output_types: Annotated[dict[LayerName, OutputTypes], Sorted] | None = None
    use_dla_core: Count | None = None
    allow_gpu_fallback: bool | None = None

    @field_validator("*", mode="after")
    @classmethod
    def _nothing_that_is_the_default(cls, value: Any, info: ValidationInfo) -> Any:
        name = info.field_name
        if value is False and name not in _ON_BY_DEFAULT:
            return None
        if isinstance(value, (dict, tuple)) and not value:
            return None
        return None if name in _DEFAULTS and value == _DEFAULTS[name] else value

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        types = [name for name in ("fp16", "bf16", "int8", "fp8", "int4", "best") if getattr(self, name)]
        if self.strongly_typed and types:
            raise InvalidRequestError(
                f"A strongly typed network takes its types from the model, not from {' and '.join(types)}."
            )
        if self.fp8 and (self.int8 or self.best):
            raise InvalidRequestError("fp8 and int8 cannot be enabled together.")
        if self.exclude_lean_runtime and not self.version_compatible:
            raise InvalidRequestError("Only a version-compatible plan has a lean runtime to exclude.")
        portable = self.version_compatible or self.hardware_compatibility_level == "ampere_plus"
        if self.native_instance_norm is False and portable:
            raise InvalidRequestError(
                "Plugin InstanceNorm cannot be used in version-compatible or hardware-compatible plans."
            )
        if (self.layer_precisions or self.layer_output_types) and not self.precision_constraints:
            raise InvalidRequestError(
                "Layer precisions and output types have no effect without precision constraints.",
                hint="Ask for obey or prefer.",
            )
        return self

    def __hash__(self) -> int:
        return hash(canonical_json(self.canonical()))

    @property
    def portable(self) -> bool:
        """Whether a plan built so may run beyond its own GPU and TensorRT version."""
        return bool(self.version_compatible or self.hardware_compatibility_level)

    def canonical(self) -> dict[str, Any]:
        """What was asked for, as JSON with sorted keys; ``{}`` for TensorRT's own defaults."""
        return dict(sorted(self.model_dump(mode="json", exclude_none=True).items()))
