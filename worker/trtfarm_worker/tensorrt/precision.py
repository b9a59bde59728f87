"""What networks that are not strongly typed may compute in: of all layers, and of single ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

from trtfarm.contract.trtexec_options import spelling_of
from trtfarm.errors import InvalidRequestError
from trtfarm_worker.layer_names import fits
from trtfarm_worker.tensorrt.io_formats import data_type
from trtfarm_worker.tensorrt.readback import Setup, assign, assign_flag, check, member, unsupported

_NOT_COMPUTED_IN = ("INT32", "INT64", "BOOL", "UINT8")
_LISTED_LAYERS = 10
T = TypeVar("T")


def set_int8(setup: Setup, value: bool, field: str = "int8") -> None:
    flag = member(setup.trt, "BuilderFlag", "INT8", field)
    if not _has_quantization(setup):
        raise unsupported(
            setup.trt,
            field,
            "needs the ranges of the tensors, and the model has no Q/DQ nodes; it cannot be used",
            "Quantize the model first (Q/DQ nodes), or use --fp16: without ranges the results are wrong.",
        )
    assign_flag(setup.trt, setup.config, flag, value, field)


def set_best(setup: Setup, value: bool) -> None:
    """Every precision that these bindings and this GPU have."""
    trt, field = setup.trt, "best"
    set_int8(setup, value, field)
    assign_flag(trt, setup.config, member(trt, "BuilderFlag", "FP16", field), value, field)
    bf16 = getattr(trt.BuilderFlag, "BF16", None)
    # BF16 came with TF32, in compute capability 8.0.
    if bf16 is not None and setup.builder.platform_has_tf32:
        assign_flag(trt, setup.config, bf16, value, field)


def set_constraints(setup: Setup, value: str) -> None:
    field = "precision_constraints"
    flag = member(setup.trt, "BuilderFlag", f"{value.upper()}_PRECISION_CONSTRAINTS", field)
    assign_flag(setup.trt, setup.config, flag, True, field)


def set_layer_precisions(setup: Setup, wanted: Mapping[str, str]) -> None:
    trt, field = setup.trt, "layer_precisions"
    _require(setup, "precision", field)
    for layer, kind in _matched(setup, wanted, field):
        assign(trt, layer, "precision", data_type(trt, kind, field), field)


def set_layer_output_types(setup: Setup, wanted: Mapping[str, Sequence[str]]) -> None:
    trt, field = setup.trt, "layer_output_types"
    _require(setup, "set_output_type", field)
    for layer, kinds in _matched(setup, wanted, field):
        if len(kinds) not in (1, layer.num_outputs):
            raise InvalidRequestError(
                f"{spelling_of(field)}: layer {layer.name!r} has {layer.num_outputs} outputs, "
                f"and {len(kinds)} types are given."
            )
        for index in range(layer.num_outputs):
            dtype = data_type(trt, kinds[index % len(kinds)], field)
            layer.set_output_type(index, dtype)
            check(trt, field, dtype, layer.get_output_type(index))


def _require(setup: Setup, name: str, field: str) -> None:
    if not hasattr(setup.trt.ILayer, name):
        hint = "Networks are strongly typed there: put the types into the model."
        raise unsupported(setup.trt, field, f"cannot be set: there is no ILayer.{name}", hint)


def _layers(setup: Setup) -> Iterator[Any]:
    return (setup.network.get_layer(index) for index in range(setup.network.num_layers))


def _has_quantization(setup: Setup) -> bool:
    kinds = setup.trt.LayerType
    return any(layer.type in (kinds.QUANTIZE, kinds.DEQUANTIZE) for layer in _layers(setup))


def _matched(setup: Setup, wanted: Mapping[str, T], field: str) -> list[tuple[Any, T]]:
    """Layers with what is wanted of them: by exact name, else by the longest name with a ``*``.

    A ``*`` passes over layers that compute on no floating-point numbers, as in trtexec.

    Raises:
        InvalidRequestError: a name that no layer has.
    """
    unused, found = set(wanted), []
    layers = list(_layers(setup))
    for layer in layers:
        fitting = [pattern for pattern in wanted if fits(pattern, layer.name)]
        unused.difference_update(fitting)
        if layer.name in wanted:
            found.append((layer, wanted[layer.name]))
        elif fitting and _computes_on_floats(layer):
            found.append((layer, wanted[max(fitting, key=len)]))
    if unused:
        names = [layer.name for layer in layers]
        more = ", …" if len(names) > _LISTED_LAYERS else ""
        raise InvalidRequestError(
            f"{spelling_of(field)}: the network has no layer {min(unused)!r}.",
            hint=f"Its layers: {', '.join(names[:_LISTED_LAYERS])}{more}",
        )
    return found


def _computes_on_floats(layer: Any) -> bool:
    output = layer.get_output(0).dtype.name if layer.num_outputs else ""
    first = layer.get_input(0) if layer.num_inputs else None
    if first is None:  # a constant
        return output not in _NOT_COMPUTED_IN
    if layer.precision.name in _NOT_COMPUTED_IN or first.is_shape_tensor:
        return False
    return first.dtype.name not in _NOT_COMPUTED_IN or output not in _NOT_COMPUTED_IN
