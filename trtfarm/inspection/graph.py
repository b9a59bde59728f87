"""Whether the nodes of a graph fit together. Operators are not looked at; that is TensorRT's affair."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING

from trtfarm.errors import InvalidGraphError, OnnxTooComplexError
from trtfarm.inspection.tensors import text

if TYPE_CHECKING:
    from onnx import AttributeProto, FunctionProto, GraphProto, NodeProto


class GraphChecker:
    """Checks graphs one after another and counts their nodes.

    Attributes:
        node_count: of all graphs so far, subgraphs included.
    """

    def __init__(self, max_parts: int) -> None:
        self._max_parts = max_parts
        self._tensors = 0
        self._visible: set[str] = set()  # names that the graph at hand may use, its outer graphs' among them
        self.node_count = 0

    def check(self, graph: GraphProto) -> None:
        """One graph with all graphs inside it.

        Raises:
            InvalidGraphError: a name is missing or given twice, or the nodes form a cycle.
            OnnxTooComplexError: there are too many nodes or initializers.
        """
        self._count(len(graph.node), len(graph.initializer) + len(graph.sparse_initializer))
        inputs = _unique((value.name for value in graph.input), "input")
        initializers = _unique(_initializer_names(graph), "initializer")
        self._nodes(graph.node, inputs | initializers, (value.name for value in graph.output))

    def check_function(self, function: FunctionProto) -> None:
        """As ``check``. A function sees nothing outside itself."""
        self._count(len(function.node), 0)
        self._nodes(function.node, _unique(function.input, "input"), function.output)

    def _count(self, nodes: int, tensors: int) -> None:
        self.node_count += nodes
        self._tensors += tensors
        for number, what in ((self.node_count, "nodes"), (self._tensors, "initializers")):
            if number > self._max_parts:
                raise OnnxTooComplexError(f"The model has {number} {what}; {self._max_parts} are accepted.")

    def _nodes(self, nodes: Sequence[NodeProto], given: set[str], results: Iterable[str]) -> None:
        names = given | _produced(nodes, given)
        # One set for all levels, so that a use costs one look however deep the graphs are nested.
        names -= self._visible
        self._visible |= names
        in_order = True
        for node in nodes:
            for name in node.input:
                if name and name not in given:
                    in_order = False
                    self._require(name, node)
            given.update(node.output)
            for graph in subgraphs(node):
                self.check(graph)
        for name in results:
            self._require(name, None)
        if not in_order:
            _check_acyclic(nodes)
        self._visible -= names

    def _require(self, name: str, node: NodeProto | None) -> None:
        if name not in self._visible:
            user = "The graph's output" if node is None else f"Node {_short(node.name or node.op_type)}"
            raise InvalidGraphError(f"{user} uses {_short(name)}, which nothing produces.")


def subgraphs(node: NodeProto) -> Iterator[GraphProto]:
    """The bodies of If, Loop, Scan and the like."""
    for attribute in node.attribute:
        yield from attribute_graphs(attribute)


def attribute_graphs(attribute: AttributeProto) -> Iterator[GraphProto]:
    if attribute.HasField("g"):
        yield attribute.g
    yield from attribute.graphs


def _produced(nodes: Iterable[NodeProto], given: set[str]) -> set[str]:
    found: set[str] = set()
    for node in nodes:
        for name in filter(None, node.output):
            if name in found or name in given:
                raise InvalidGraphError(f"The name {_short(name)} is given to two values.")
            found.add(name)
    return found


def _initializer_names(graph: GraphProto) -> Iterator[str]:
    yield from (tensor.name for tensor in graph.initializer)
    yield from (sparse.values.name for sparse in graph.sparse_initializer)


def _unique(names: Iterable[str], what: str) -> set[str]:
    found: set[str] = set()
    for name in names:
        if not name:
            raise InvalidGraphError(f"An {what} has no name.")
        if name in found:
            raise InvalidGraphError(f"Two values have the {what} name {_short(name)}.")
        found.add(text(name))
    return found


def _check_acyclic(nodes: Sequence[NodeProto]) -> None:
    """Nodes in another order than ONNX asks for are let pass: TensorRT sorts them itself."""
    producer = {name: number for number, node in enumerate(nodes) for name in node.output if name}
    uses = {
        number: {producer[name] for name in node.input if name in producer}
        for number, node in enumerate(nodes)
    }
    try:
        TopologicalSorter(uses).prepare()
    except CycleError as error:
        node = nodes[error.args[1][0]]
        raise InvalidGraphError(
            f"Node {_short(node.name or node.op_type)} depends on its own output."
        ) from None


def _short(name: str) -> str:
    return repr(name[:80])
