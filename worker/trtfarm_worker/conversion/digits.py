"""What must not be rounded to float16 on the way."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onnx import GraphProto, NodeProto

# From here on it is about values, not about shapes.
_FILLED = frozenset({"ConstantOfShape", "Range", "Expand", "Tile", "EyeLike"})


def shape_arithmetic(graph: GraphProto) -> list[str]:
    """Names of the nodes that compute shapes: float16 has no 2049. Those without a name are given one."""
    constants = {tensor.name for tensor in graph.initializer}
    sources: dict[str, NodeProto] = {}
    derived: set[str] = set()
    found: list[NodeProto] = []
    for node in graph.node:
        inputs = {name for name in node.input if name}
        if node.op_type == "Constant":
            sources.update(dict.fromkeys(node.output, node))
        elif node.op_type in {"Shape", "Size"}:
            derived.update(node.output)
        elif (
            node.op_type not in _FILLED
            and inputs & derived
            and inputs <= derived | constants | sources.keys()
        ):
            derived.update(node.output)
            found += [node, *(sources[name] for name in node.input if name in sources)]
    for node in found:
        node.name = node.name or f"shape.{node.output[0]}"
    return list(dict.fromkeys(node.name for node in found))


def keep_digits(graph: GraphProto, before: Collection[str]) -> None:
    """Values between two float32 nodes stay float32: the converter casts them to float16 and back.

    ``before``: names of the nodes that the model had; others are the converter's casts.
    """
    from onnx import TensorProto

    casts = [node for node in graph.node if node.op_type == "Cast" and node.name not in before]
    narrowed = {node.output[0]: node.input[0] for node in casts if node.attribute[0].i == TensorProto.FLOAT16}
    for node in casts:
        if node.attribute[0].i == TensorProto.FLOAT:
            node.input[0] = narrowed.get(node.input[0], node.input[0])
