"""What an ONNX file says of itself, read without trusting it.

``onnx.checker`` is not used: it is slow on large models and refuses some that TensorRT builds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from trtfarm.contract.models import ModelInfo, check_side_by_side
from trtfarm.errors import InvalidGraphError, OnnxOpsetError, OnnxTooComplexError
from trtfarm.inspection.external import Reference, check_references, references
from trtfarm.inspection.functions import check_functions
from trtfarm.inspection.graph import GraphChecker
from trtfarm.inspection.proto import read_model
from trtfarm.inspection.tensors import tensor_info, text

if TYPE_CHECKING:
    from onnx import ModelProto, OperatorSetIdProto

MAX_NODES: Final = 1_000_000
MAX_LISTED: Final = 10_000
"""Inputs and outputs together, and external files: what a ``ModelInfo`` may list."""
_MAX_VERSION: Final = 64
"""No IR version and no version of ONNX's own operators is near this yet; it catches nonsense only."""


def inspect_model(
    path: Path, external_sizes: Mapping[str, int] | None = None, *, max_nodes: int = MAX_NODES
) -> ModelInfo:
    """Reads ``path`` and nothing else.

    Args:
        path: the ONNX file.
        external_sizes: location → bytes of the external files that go with the model. None: unknown yet,
            and the ranges within them are not checked.
        max_nodes: with subgraphs, and with functions written out.

    Raises:
        ModelError: of the kind that fits.
    """
    info, found = examine(path, max_nodes=max_nodes)
    if external_sizes is not None:
        check_references(found, external_sizes)
    return info


def check_ranges(path: Path, files: Mapping[str, int]) -> None:
    """``inspect_model`` for the sake of its ranges.

    Raises:
        ExternalDataMissingError: a file that the model names is not among ``files``.
        ExternalDataRangeError: a file is shorter than the model says.
    """
    inspect_model(path, files)


def examine(path: Path, *, max_nodes: int = MAX_NODES) -> tuple[ModelInfo, frozenset[Reference]]:
    """``inspect_model``, with the parts of the external files that the tensors are read from."""
    model = read_model(path)
    opsets = _opsets(model)
    node_count = _check_graphs(model, max_nodes)
    found = references(model)
    locations = tuple(sorted({item.location for item in found}))
    if len(locations) > MAX_LISTED:
        raise OnnxTooComplexError(f"The model names {len(locations)} files; {MAX_LISTED} are accepted.")
    check_side_by_side(locations)
    graph = model.graph
    initialized = {tensor.name for tensor in graph.initializer}
    initialized.update(sparse.values.name for sparse in graph.sparse_initializer)
    info = ModelInfo(
        inputs=tuple(tensor_info(value) for value in graph.input if value.name not in initialized),
        outputs=tuple(tensor_info(value) for value in graph.output),
        ir_version=model.ir_version,
        opsets=opsets,
        node_count=node_count,
        external_data=locations,
    )
    return info, found


def _check_graphs(model: ModelProto, max_nodes: int) -> int:
    graph = model.graph
    if not graph.node:
        raise InvalidGraphError("The model has no nodes.")
    if not graph.output:
        raise InvalidGraphError("The model has no outputs.")
    # Inputs of old models repeat the initializers, so they are not held against the limit.
    if len(graph.output) + len(graph.input) - len(graph.initializer) > MAX_LISTED:
        raise OnnxTooComplexError(f"The model has more than {MAX_LISTED} inputs and outputs.")
    checker = GraphChecker(max_nodes)
    checker.check(graph)
    for function in model.functions:
        checker.check_function(function)
    check_functions(model, max_nodes)
    return checker.node_count


def _opsets(model: ModelProto) -> dict[str, int]:
    """
    Raises:
        OnnxOpsetError: no such IR version or operator set, or two versions of one domain.
    """
    if not 1 <= model.ir_version <= _MAX_VERSION:
        raise OnnxOpsetError(f"There is no IR version {model.ir_version}.")
    if not model.opset_import and model.ir_version < 3:
        return {"ai.onnx": 1}  # what its absence meant then
    found: dict[str, int] = {}
    for domain, version in _imports(model.opset_import):
        limit = _MAX_VERSION if domain == "ai.onnx" else 2**31
        if not (domain != "ai.onnx" and version == 0) and not 1 <= version <= limit:
            raise OnnxOpsetError(f"There is no opset {version} of {domain[:80]!r}.")
        if found.setdefault(domain, version) != version:
            raise OnnxOpsetError(f"The model imports two versions of {domain[:80]!r}.")
    if not found:
        raise OnnxOpsetError("The model does not say which operator set it uses.")
    return found


def _imports(entries: Iterable[OperatorSetIdProto]) -> Iterable[tuple[str, int]]:
    for entry in entries:
        yield text(entry.domain) or "ai.onnx", entry.version
