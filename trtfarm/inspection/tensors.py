"""Inputs and outputs in the words of the contract."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trtfarm.contract.profiles import TensorInfo
from trtfarm.errors import InvalidGraphError

if TYPE_CHECKING:
    from onnx import TensorShapeProto, ValueInfoProto


def tensor_info(value: ValueInfoProto) -> TensorInfo:
    """What is no tensor (a sequence, a map) has that as its dtype and no shape; so has an unknown type.

    Raises:
        InvalidGraphError: the name is not text, or the element type does not exist.
    """
    from onnx import TensorProto

    name = text(value.name)
    kind = value.type.WhichOneof("value")
    if kind != "tensor_type":
        return TensorInfo(name=name, dtype=(kind or "undefined").removesuffix("_type"), shape=None)
    tensor = value.type.tensor_type
    try:
        dtype = TensorProto.DataType.Name(tensor.elem_type).lower()
    except ValueError:
        raise InvalidGraphError(f"{name[:80]!r} has the element type {tensor.elem_type}.") from None
    shape = _shape(tensor.shape) if tensor.HasField("shape") else None
    return TensorInfo(name=name, dtype=dtype, shape=shape)


def _shape(shape: TensorShapeProto) -> tuple[int, ...]:
    """Negative sizes are how some exporters write a dynamic axis."""
    return tuple(max(dim.dim_value, -1) if dim.HasField("dim_value") else -1 for dim in shape.dim)


def text(value: str | bytes) -> str:
    """A name that a database and a person can take.

    Raises:
        InvalidGraphError: it is not UTF-8 (protobuf hands out bytes then) or contains NUL.
    """
    if isinstance(value, bytes) or "\0" in value:
        raise InvalidGraphError(f"The name {value[:80]!r} is not text.")
    return value
