"""Strongly typed networks take their types from the model: a converter puts those asked for into it."""

from __future__ import annotations

from trtfarm.contract.builder_config import BuilderConfig
from trtfarm.contract.target import RTX, Runtime

CONVERTER = "onnxruntime-1.31.1"
"""What makes typed models. Part of the build key: another one makes another model, and so another plan.

Where the farm changes what it does around it, raise KEY_VERSION.
"""


def strongly_typed(runtime: Runtime) -> bool:
    """Whether all networks of the runtime are; an unknown version's are not known to be."""
    return runtime.flavour == RTX or runtime.version_numbers >= (11,)


def converter_for(config: BuilderConfig, runtime: str) -> str | None:
    """What the model of a build has to go through first, if anything."""
    return CONVERTER if config.fp16 and strongly_typed(Runtime.parse(runtime)) else None


def left_to_tensorrt(config: BuilderConfig, converter: str | None) -> BuilderConfig:
    """What is to be set on a build once its model has the types."""
    if converter is None:
        return config

    def untyped(formats: tuple[str, ...] | None) -> tuple[str, ...] | None:
        return formats and tuple(text.rpartition(":")[2] for text in formats)

    return config.model_copy(
        update={
            "fp16": None,
            "precision_constraints": None,
            "layer_precisions": None,
            "input_io_formats": untyped(config.input_io_formats),
            "output_io_formats": untyped(config.output_io_formats),
        }
    )


def io_types(formats: tuple[str, ...] | None) -> tuple[str, ...]:
    """The type in each of ``--inputIOFormats``; empty where it is left to the model."""
    return tuple(text.rpartition(":")[0] for text in formats or ())
