"""One look at everything in a model: how much there is, and which tensors lie in other files."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from trtfarm.errors import OnnxTooComplexError
from trtfarm.inspection.tensors import text

if TYPE_CHECKING:
    from onnx import AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, TensorProto

MAX_BODIES: Final = 100_000
"""Graphs inside of the graph, and functions: each costs as much as many nodes, even if it is empty."""


def external_tensors(model: ModelProto, max_parts: int) -> list[TensorProto]:
    """Tensors anywhere in the model whose bytes lie elsewhere.

    Everything is counted before it is visited, as a part takes two bytes in a file and a microsecond here:
    what later passes cost is bounded by this one.

    Raises:
        InvalidGraphError: a node's or attribute's name is not text.
        OnnxTooComplexError: there are more parts than ``max_parts``, or graphs than ``MAX_BODIES``.
    """
    look = _Survey(max_parts)
    look.model(model)
    return look.external


def _check_text(node: NodeProto) -> None:
    """TensorRT hands names on to its log, and what is not UTF-8 ends the process that listens to it."""
    text(node.name)
    text(node.op_type)
    text(node.domain)
    for name in node.output:
        text(name)


class _Survey:
    def __init__(self, max_parts: int) -> None:
        self._max_parts = max_parts
        self._parts = self._bodies = 0
        self._graphs: list[GraphProto] = []
        self.external: list[TensorProto] = []

    def model(self, model: ModelProto) -> None:
        self._count(len(model.opset_import), len(model.metadata_props))
        self._count_bodies(len(model.functions) + 2 * len(model.training_info))
        self._graphs.append(model.graph)
        for training in model.training_info:
            self._graphs += (training.initialization, training.algorithm)
        for function in model.functions:
            self._function(function)
        while self._graphs:  # a list of our own: as deep as a file can nest, and none of Python's stack
            self._graph(self._graphs.pop())

    def _function(self, function: FunctionProto) -> None:
        self._count(
            len(function.input),
            len(function.output),
            len(function.attribute),
            len(function.attribute_proto),
            len(function.node),
        )
        self._attributes(function.attribute_proto)
        self._nodes(function.node)

    def _graph(self, graph: GraphProto) -> None:
        self._count(
            len(graph.input),
            len(graph.output),
            len(graph.initializer),
            len(graph.sparse_initializer),
            len(graph.node),
        )
        self._tensors(graph.initializer)
        for sparse in graph.sparse_initializer:
            self._tensors((sparse.values, sparse.indices))
        self._nodes(graph.node)

    def _nodes(self, nodes: Iterable[NodeProto]) -> None:
        for node in nodes:
            _check_text(node)
            attributes = node.attribute
            self._count(len(node.input), len(node.output), len(attributes))
            if attributes:
                self._attributes(attributes)

    def _attributes(self, attributes: Iterable[AttributeProto]) -> None:
        """Whatever is there, not only what an attribute's declared type says is there."""
        for attribute in attributes:
            text(attribute.name)
            if attribute.HasField("t"):
                self._tensors((attribute.t,))
            if attribute.HasField("sparse_tensor"):
                self._tensors((attribute.sparse_tensor.values, attribute.sparse_tensor.indices))
            if attribute.tensors or attribute.sparse_tensors or attribute.graphs:
                self._count(len(attribute.tensors), len(attribute.sparse_tensors))
                self._count_bodies(len(attribute.graphs))
                self._tensors(attribute.tensors)
                for sparse in attribute.sparse_tensors:
                    self._tensors((sparse.values, sparse.indices))
            if attribute.HasField("g"):
                self._count_bodies(1)
                self._graphs.append(attribute.g)
            self._graphs += attribute.graphs

    def _tensors(self, tensors: Iterable[TensorProto]) -> None:
        from onnx import TensorProto

        for tensor in tensors:
            if tensor.data_location == TensorProto.EXTERNAL:
                self._count(len(tensor.external_data))
                self.external.append(tensor)

    def _count(self, *parts: int) -> None:
        self._parts += sum(parts)
        if self._parts > self._max_parts:
            raise OnnxTooComplexError(
                f"The model has more than {self._max_parts} parts: nodes, their inputs, outputs and "
                "attributes, and tensors."
            )

    def _count_bodies(self, number: int) -> None:
        self._bodies += number
        if self._bodies > MAX_BODIES:
            raise OnnxTooComplexError(f"The model has more than {MAX_BODIES} functions and graphs in graphs.")
