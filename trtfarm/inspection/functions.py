"""Model-local functions: how large a model is once they are written out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING

from trtfarm.errors import InvalidGraphError, OnnxFunctionError
from trtfarm.inspection.graph import subgraphs

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

Key = tuple[str, str, str]


def check_functions(model: ModelProto, max_nodes: int) -> None:
    """A few functions that call one another twice each expand to billions of nodes.

    Raises:
        OnnxFunctionError: that happens here, or a function calls itself.
        InvalidGraphError: two functions have one name.
    """
    if not model.functions:
        return
    functions = {
        _key(function.domain, function.name, function.overload): function for function in model.functions
    }
    if len(functions) != len(model.functions):
        raise InvalidGraphError("Two of the model's functions have one name.")
    calls = {key: list(_calls(function.node)) for key, function in functions.items()}
    try:
        order = list(
            TopologicalSorter(
                {key: set(called) & set(functions) for key, called in calls.items()}
            ).static_order()
        )
    except CycleError:
        raise OnnxFunctionError("A function of the model calls itself.") from None
    size: dict[Key, int] = {}
    for key in order:
        size[key] = sum(size.get(called, 1) for called in calls[key])
    total = sum(size.get(called, 1) for called in _calls(model.graph.node))
    if total > max_nodes:
        raise OnnxFunctionError(f"The model's functions expand to more than {max_nodes} nodes.")


def _key(domain: str, name: str, overload: str) -> Key:
    return "" if domain == "ai.onnx" else domain, name, overload


def _calls(nodes: Iterable[NodeProto]) -> Iterator[Key]:
    for node in nodes:
        yield _key(node.domain, node.op_type, node.overload)
        for graph in subgraphs(node):
            yield from _calls(graph.node)
