"""Types and memory formats of the network's inputs and outputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from trtfarm.contract.trtexec_options import spelling_of
from trtfarm.errors import InvalidRequestError
from trtfarm_worker.tensorrt.readback import Setup, assign, has_setter, member, unsupported

# trtexec's spelling → TensorFormat; the others differ in case only.
_FORMATS = {"chw": "LINEAR"}
# trtexec's spelling → DataType; likewise.
_TYPES = {"fp32": "FLOAT", "fp16": "HALF"}


def data_type(trt: Any, spelling: str, field: str) -> Any:
    return member(trt, "DataType", _TYPES.get(spelling, spelling.upper()), field)


def tensor_format(trt: Any, spelling: str, field: str) -> Any:
    return member(trt, "TensorFormat", _FORMATS.get(spelling, spelling.upper()), field)


def set_inputs(setup: Setup, formats: Sequence[str]) -> None:
    network = setup.network
    tensors = [network.get_input(index) for index in range(network.num_inputs)]
    _set(setup.trt, tensors, formats, "input_io_formats")


def set_outputs(setup: Setup, formats: Sequence[str]) -> None:
    network = setup.network
    tensors = [network.get_output(index) for index in range(network.num_outputs)]
    _set(setup.trt, tensors, formats, "output_io_formats")


def _set(trt: Any, tensors: Sequence[Any], formats: Sequence[str], field: str) -> None:
    """One format for all, or one for each in the model's order."""
    if len(formats) not in (1, len(tensors)):
        raise InvalidRequestError(
            f"{spelling_of(field)} has {len(formats)} formats for {len(tensors)} tensors.",
            hint=f"Give one for all, or one for each of: {', '.join(tensor.name for tensor in tensors)}.",
        )
    each = formats if len(formats) > 1 else [formats[0]] * len(tensors)
    for tensor, text in zip(tensors, each, strict=True):
        kind, colon, names = text.rpartition(":")
        if colon:
            _set_type(trt, tensor, data_type(trt, kind, field), field)
        mask = 0
        for name in names.split("+"):
            mask |= 1 << int(tensor_format(trt, name, field))
        assign(trt, tensor, "allowed_formats", mask, field)


def _set_type(trt: Any, tensor: Any, dtype: Any, field: str) -> None:
    if not has_setter(tensor, "dtype"):
        hint = "Leave the type out, and put it into the model."
        raise unsupported(trt, field, "cannot set a type", hint)
    if tensor.dtype != dtype:  # a strongly typed network refuses even what changes nothing
        assign(trt, tensor, "dtype", dtype, field)
