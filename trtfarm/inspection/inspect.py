"""What an ONNX file says of itself, read without trusting it.

``onnx.checker`` is not used: it is slow on large models and refuses some that TensorRT builds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

from trtfarm.contract.models import ModelInfo, check_side_by_side
from trtfarm.errors import InvalidGraphError, OnnxOpsetError, OnnxTooComplexError
from trtfarm.inspection.external import Reference, check_references, references
from trtfarm.inspection.functions import check_functions
from trtfarm.inspection.graph import GraphChecker
from trtfarm.inspection.proto import read_model
from trtfarm.inspection.survey import external_tensors
from trtfarm.inspection.tensors import tensor_info, text

if TYPE_CHECKING:
    from onnx import ModelProto, OperatorSetIdProto

MAX_NODES: Final = 1_000_000
MAX_PARTS: Final = 4_000_000
"""Parts of all kinds together: an upper limit for the time that reading takes."""
MAX_LISTED: Final = 10_000
"""Inputs and outputs together, and external files: what a ``ModelInfo`` may list."""
MAX_NAME_BYTES: Final = 1024
"""An input's or output's name, or the domain of an operator set."""
MAX_RANK: Final = 64
MAX_OPSETS: Final = 256
MAX_DESCRIPTION_BYTES: Final = 1 << 20
"""A ``ModelInfo`` as JSON: it is kept in the database and sent whenever somebody asks for the model."""
_MAX_VERSION: Final = 64
"""No IR version and no version of ONNX's own operators is near this yet; it catches nonsense only."""


def inspect_model(
    source: Path | BinaryIO, external_sizes: Mapping[str, int] | None = None, *, max_nodes: int = MAX_NODES
) -> ModelInfo:
    """Reads ``source`` and nothing else.

    Args:
        source: the ONNX file, or one that is open for reading.
        external_sizes: location → bytes of the external files that go with the model. None: unknown yet,
            and the ranges within them are not checked.
        max_nodes: with subgraphs, and with functions written out.

    Raises:
        ModelError: of the kind that fits.
    """
    info, found = examine(source, max_nodes=max_nodes)
    if external_sizes is not None:
        check_references(found, external_sizes)
    return info


def check_description(info: ModelInfo) -> None:
    """Whether the farm keeps what a model says of itself.

    Raises:
        OnnxTooComplexError: it is too long, as a whole or in a part.
        InvalidGraphError: a name is not text.
    """
    tensors = info.inputs + info.outputs
    for what, number, limit in (
        ("inputs and outputs", len(tensors), MAX_LISTED),
        ("external files", len(info.external_data), MAX_LISTED),
        ("operator sets", len(info.opsets), MAX_OPSETS),
        ("axes of an input or output", max((len(item.shape or ()) for item in tensors), default=0), MAX_RANK),
    ):
        if number > limit:
            raise OnnxTooComplexError(f"The model has {number} {what}; {limit} are accepted.")
    for name in (*(item.name for item in tensors), *info.opsets):
        if len(text(name).encode()) > MAX_NAME_BYTES:
            raise OnnxTooComplexError(
                f"The name {name[:80]!r}… has {len(name.encode())} bytes; {MAX_NAME_BYTES} are accepted.",
                hint="Export the model with shorter names of its inputs and outputs.",
            )
    if (size := len(info.model_dump_json())) > MAX_DESCRIPTION_BYTES:
        raise OnnxTooComplexError(
            f"The names and shapes of the model's inputs, outputs and external files take {size} characters; "
            f"{MAX_DESCRIPTION_BYTES} are accepted.",
            hint="Save the external data as one file, and export the model with shorter names.",
        )


def check_ranges(path: Path, files: Mapping[str, int]) -> None:
    """``inspect_model`` for the sake of its ranges.

    Raises:
        ExternalDataMissingError: a file that the model names is not among ``files``.
        ExternalDataRangeError: a file is shorter than the model says.
    """
    inspect_model(path, files)


def examine(source: Path | BinaryIO, *, max_nodes: int = MAX_NODES) -> tuple[ModelInfo, frozenset[Reference]]:
    """``inspect_model``, with the parts of the external files that the tensors are read from."""
    model = read_model(source)
    opsets = _opsets(model)
    external = external_tensors(model, MAX_PARTS)
    node_count = _check_graphs(model, max_nodes)
    found = references(external)
    locations = tuple(sorted({item.location for item in found}))
    graph = model.graph
    initialized = {tensor.name for tensor in graph.initializer}
    initialized.update(sparse.values.name for sparse in graph.sparse_initializer)
    # Inputs of old models repeat the initializers; they are not described.
    fed = [value for value in graph.input if value.name not in initialized]
    if (number := len(fed) + len(graph.output)) > MAX_LISTED:
        raise OnnxTooComplexError(f"The model has {number} inputs and outputs; {MAX_LISTED} are accepted.")
    info = ModelInfo(
        inputs=tuple(map(tensor_info, fed)),
        outputs=tuple(map(tensor_info, graph.output)),
        ir_version=model.ir_version,
        opsets=opsets,
        node_count=node_count,
        external_data=locations,
    )
    check_description(info)
    check_side_by_side(locations)
    return info, found


def _check_graphs(model: ModelProto, max_nodes: int) -> int:
    graph = model.graph
    if not graph.node:
        raise InvalidGraphError("The model has no nodes.")
    if not graph.output:
        raise InvalidGraphError("The model has no outputs.")
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
