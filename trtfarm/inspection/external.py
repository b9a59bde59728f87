"""External data: which parts of which files a model's tensors are read from."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from trtfarm.contract.models import check_location
from trtfarm.errors import (
    ExternalDataKeyError,
    ExternalDataMissingError,
    ExternalDataPathError,
    ExternalDataRangeError,
)
from trtfarm.inspection.graph import attribute_graphs

if TYPE_CHECKING:
    from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, SparseTensorProto, TensorProto

KEYS = frozenset({"location", "offset", "length", "checksum"})
_NUMBER = re.compile(r"[0-9]{1,19}")


@dataclass(frozen=True, slots=True)
class Reference:
    """A tensor's bytes. Without a length they reach to the end of the file."""

    location: str
    offset: int
    length: int | None


def references(model: ModelProto) -> frozenset[Reference]:
    """Of every tensor anywhere in the model.

    Raises:
        ExternalDataError: an entry is malformed or leaves the model's folder.
    """
    from onnx import TensorProto

    return frozenset(
        _reference(tensor) for tensor in _tensors(model) if tensor.data_location == TensorProto.EXTERNAL
    )


def check_references(found: Iterable[Reference], sizes: Mapping[str, int]) -> None:
    """Every reference against the files that are there.

    Args:
        found: what the model reads.
        sizes: location → bytes, of the files that were given.

    Raises:
        ExternalDataMissingError: a file was not given.
        ExternalDataRangeError: a file is too short.
    """
    for item in found:
        size = sizes.get(item.location)
        if size is None:
            raise ExternalDataMissingError(
                f"The model needs external data {item.location!r}, which was not given.",
                location=item.location,
            )
        end = item.offset + (item.length or 0)
        if end > size:
            raise ExternalDataRangeError(
                f"The model reads {item.location!r} up to byte {end}; the file has {size}.",
                location=item.location,
            )


def _reference(tensor: TensorProto) -> Reference:
    entries: dict[str, str] = {}
    for entry in tensor.external_data:
        if entry.key not in KEYS or entry.key in entries:
            problem = "twice" if entry.key in KEYS else "which ONNX does not know"
            raise ExternalDataKeyError(f"External data has the key {entry.key[:80]!r}, {problem}.")
        entries[entry.key] = entry.value
    location = entries.get("location", "")
    if not isinstance(location, str):  # protobuf's answer to what is not UTF-8
        raise ExternalDataPathError(f"External data location {location!r:.200} is not UTF-8.")
    check_location(location)
    offset, length = _number(entries, "offset"), _number(entries, "length")
    return Reference(location, offset or 0, length)


def _number(entries: Mapping[str, str], key: str) -> int | None:
    text = entries.get(key)
    if text is None:
        return None
    if not isinstance(text, str) or not _NUMBER.fullmatch(text) or int(text) >= 2**63:
        raise ExternalDataRangeError(
            f"External data has the {key} {text[:80]!r}, which is no number of bytes."
        )
    return int(text)


def _tensors(model: ModelProto) -> Iterator[TensorProto]:
    yield from _in_graph(model.graph)
    for training in model.training_info:
        yield from _in_graph(training.initialization)
        yield from _in_graph(training.algorithm)
    for function in model.functions:
        yield from _in_attributes(function.attribute_proto)
        yield from _in_nodes(function.node)


def _in_graph(graph: GraphProto) -> Iterator[TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from _in_sparse(sparse)
    yield from _in_nodes(graph.node)


def _in_nodes(nodes: Iterable[NodeProto]) -> Iterator[TensorProto]:
    for node in nodes:
        yield from _in_attributes(node.attribute)


def _in_attributes(attributes: Iterable[AttributeProto]) -> Iterator[TensorProto]:
    """Whatever is there, not only what an attribute's declared type says is there."""
    for attribute in attributes:
        if attribute.HasField("t"):
            yield attribute.t
        yield from attribute.tensors
        if attribute.HasField("sparse_tensor"):
            yield from _in_sparse(attribute.sparse_tensor)
        for sparse in attribute.sparse_tensors:
            yield from _in_sparse(sparse)
        for graph in attribute_graphs(attribute):
            yield from _in_graph(graph)


def _in_sparse(sparse: SparseTensorProto) -> Iterator[TensorProto]:
    yield sparse.values
    yield sparse.indices
