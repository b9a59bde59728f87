"""Model-local functions: how large a model is once they are written out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING

from trtfarm.errors import InvalidGraphError, OnnxFunctionError
from trtfarm.inspection.graph import subgraphs

if TYPE_CHECKING:
    from onnx import FunctionProto, ModelProto, NodeProto

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
    calls = {key: _calls(function.node, functions) for key, function in functions.items()}
    try:
        order = list(TopologicalSorter(calls).static_order())
    except CycleError:
        raise OnnxFunctionError("A function of the model calls itself.") from None
    sizes: dict[Key, int] = {}
    for key in order:
        # Beyond the limit a number says nothing more, and has as many digits as there are functions.
        sizes[key] = min(_size(calls[key], sizes), max_nodes + 1)
    if _size(_calls(model.graph.node, functions), sizes) > max_nodes:
        raise OnnxFunctionError(f"The model's functions expand to more than {max_nodes} nodes.")


class _Calls(Counter[Key]):
    """How often each function is called. ``plain``: nodes beside those that are calls."""

    plain = 0


def _key(domain: str, name: str, overload: str) -> Key:
    return "" if domain == "ai.onnx" else domain, name, overload


def _calls(nodes: Iterable[NodeProto], functions: Mapping[Key, FunctionProto]) -> _Calls:
    found = _Calls()
    levels = [nodes]
    while levels:
        for node in levels.pop():
            key = _key(node.domain, node.op_type, node.overload)
            if key in functions:
                found[key] += 1
            else:
                found.plain += 1
            levels += (graph.node for graph in subgraphs(node))
    return found


def _size(calls: _Calls, sizes: Mapping[Key, int]) -> int:
    return calls.plain + sum(count * sizes[key] for key, count in calls.items())
