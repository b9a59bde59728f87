"""The process that converts one model, with ONNX Runtime's converter.

    python -m trtfarm_worker.conversion.process <ORDER

It is confined before it opens the model. Exit status 1 comes with an ErrorView as its answer; all that it
prints belongs into the job's log.
"""

from __future__ import annotations

import os
import resource
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from trtfarm import sandbox
from trtfarm.contract.trtexec_options import spelling_of
from trtfarm.contract.v1 import ErrorView
from trtfarm.errors import ConfigurationError, InvalidRequestError, TrtFarmError
from trtfarm_worker.child.lifeline import die_with_parent
from trtfarm_worker.conversion.convert import ACCOUNT, DATA, HINT, ConversionError, Order
from trtfarm_worker.conversion.digits import keep_digits, shape_arithmetic
from trtfarm_worker.layer_names import best, fits

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, TensorProto, ValueInfoProto

# Shapes and other small constants, which type inference reads.
_SMALL_BYTES = 64 * 1024
_LARGEST = 65504.0
_LISTED = 10
_ACCOUNT_CHARACTERS = 10_000
_ANSWER_CHARACTERS = 2_000


def main() -> None:
    order = Order.model_validate_json(sys.stdin.buffer.read())
    enter(order)
    try:
        convert(order)
    except TrtFarmError as error:
        fail(order, error)
    except Exception as error:  # noqa: BLE001 - third-party code; the job's log has the traceback
        sys.excepthook(type(error), error, error.__traceback__)
        text = str(error).partition("\n")[0][:300] or type(error).__name__
        fail(order, ConversionError(f"The model cannot be converted to fp16: {text}", hint=HINT))


def enter(order: Order) -> None:
    """Loads all that is needed, and then can reach nothing but the model and the folder for its copy."""
    die_with_parent(order.parent_pid)
    import onnx.external_data_helper
    import onnx.inliner
    import onnx.numpy_helper
    import onnx.shape_inference  # noqa: F401
    import onnxruntime.transformers.float16  # noqa: F401

    try:
        sandbox.confine(
            sandbox.Box(
                read=(Path(order.model).parent,),
                write=(Path(order.destination).parent,),
                memory_bytes=order.memory_bytes,
                file_bytes=order.file_bytes,
            ),
            order.sandbox,
        )
    except (ConfigurationError, OSError) as error:
        fail(order, ConfigurationError(f"The process that converts models cannot be confined: {error}"))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def convert(order: Order) -> None:
    """Writes ``order.destination``, and beside it the weights of a model that has them in other files."""
    import onnx
    from onnxruntime.transformers import float16

    model, external = _load(Path(order.model))
    inputs = _real_inputs(model.graph)
    kept = _kept(inputs, order.inputs, "input_io_formats")
    kept += _kept(model.graph.output, order.outputs, "output_io_formats")
    layers = kept_layers(model.graph, order.layers)
    told = _beyond_float16(model.graph)
    exact = shape_arithmetic(model.graph)
    before, nodes = _floats(model.graph), {node.name for node in model.graph.node}
    model = float16.convert_float_to_float16(
        model, keep_io_types=kept, node_block_list=[*layers, *exact], disable_shape_infer=True
    )
    keep_digits(model.graph, nodes)
    told += _account(before, model.graph, {*float16.DEFAULT_OP_BLOCK_LIST}, {*layers})
    account = "".join(f"fp16: {line}\n" for line in told)
    Path(order.destination).with_suffix(ACCOUNT).write_text(account[:_ACCOUNT_CHARACTERS], encoding="utf-8")
    if external:  # a protobuf file ends at 2 GiB
        onnx.save_model(
            model,
            order.destination,
            save_as_external_data=True,
            location=f"{Path(order.destination).name}{DATA}",
        )
    else:
        onnx.save_model(model, order.destination)


def _load(path: Path) -> tuple[ModelProto, bool]:
    """The model with inferred types and all its weights; whether they were outside of the file."""
    import onnx
    from onnx import external_data_helper, inliner

    model = onnx.load(path, load_external_data=False)
    if model.functions:
        model = inliner.inline_local_functions(model)
    outside = list(_external(model.graph))
    small = [tensor for tensor in outside if _length(tensor) <= _SMALL_BYTES]
    for tensor in small:
        external_data_helper.load_external_data_for_tensor(tensor, str(path.parent))
        _inside(tensor)
    # The large ones are not there yet: a message of 2 GiB cannot be passed to the inference.
    model = onnx.shape_inference.infer_shapes(model)
    for tensor in _external(model.graph):
        external_data_helper.load_external_data_for_tensor(tensor, str(path.parent))
        _inside(tensor)
    return model, bool(outside)


def _external(graph: GraphProto) -> Iterator[TensorProto]:
    """Of the graph and those inside of it."""
    from onnx import TensorProto

    for tensor in graph.initializer:
        if tensor.data_location == TensorProto.EXTERNAL:
            yield tensor
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t") and attribute.t.data_location == TensorProto.EXTERNAL:
                yield attribute.t
            for inner in (*attribute.graphs, *((attribute.g,) if attribute.HasField("g") else ())):
                yield from _external(inner)


def _length(tensor: TensorProto) -> int:
    """Bytes, as far as they are told; a reference may leave them out."""
    told = (entry.value for entry in tensor.external_data if entry.key == "length")
    return int(next(told, _SMALL_BYTES + 1))


def _inside(tensor: TensorProto) -> None:
    from onnx import TensorProto

    tensor.data_location = TensorProto.DEFAULT
    del tensor.external_data[:]


def _real_inputs(graph: GraphProto) -> list[ValueInfoProto]:
    """Old models list their weights too."""
    weights = {tensor.name for tensor in graph.initializer}
    return [tensor for tensor in graph.input if tensor.name not in weights]


def kept_layers(graph: GraphProto, wanted: dict[str, str]) -> list[str]:
    """Names of the nodes that stay in float32.

    Raises:
        InvalidRequestError: a name that no node has.
    """
    names = [node.name for node in graph.node if node.name]
    for pattern in wanted:
        if not any(fits(pattern, name) for name in names):
            more = ", …" if len(names) > _LISTED else ""
            raise InvalidRequestError(
                f"{spelling_of('layer_precisions')}: the model has no node {pattern!r}.",
                hint=f"Its nodes: {', '.join(names[:_LISTED])}{more}",
            )
    chosen = {name: best(wanted, name) for name in names}
    return [name for name, pattern in chosen.items() if pattern is not None and wanted[pattern] == "fp32"]


def _kept(tensors: Sequence[ValueInfoProto], wanted: Sequence[str], field: str) -> list[str]:
    """Names of those that stay float32: all that are, but for those that shall be float16.

    Raises:
        InvalidRequestError: a type that the tensor neither has nor can be given.
    """
    from onnx import TensorProto

    if wanted and len(wanted) not in (1, len(tensors)):
        raise InvalidRequestError(
            f"{spelling_of(field)} has {len(wanted)} formats for {len(tensors)} tensors.",
            hint=f"Give one for all, or one for each of: {', '.join(tensor.name for tensor in tensors)}.",
        )
    each = [*wanted] * len(tensors) if len(wanted) == 1 else [*wanted] or [""] * len(tensors)
    kept = []
    for tensor, kind in zip(tensors, each, strict=True):
        have = _SPELLINGS.get(TensorProto.DataType.Name(tensor.type.tensor_type.elem_type), "")
        if kind not in {"", have} and (have, kind) != ("fp32", "fp16"):
            raise InvalidRequestError(
                f"{spelling_of(field)}={kind}: {tensor.name} is {have or 'of another type'}, "
                f"and the conversion to fp16 does not make it {kind}."
            )
        if have == "fp32" and kind != "fp16":
            kept.append(tensor.name)
    return kept


_SPELLINGS = {
    "FLOAT": "fp32",
    "FLOAT16": "fp16",
    "BFLOAT16": "bf16",
    "INT8": "int8",
    "INT32": "int32",
    "INT64": "int64",
    "BOOL": "bool",
    "UINT8": "uint8",
    "FLOAT8E4M3FN": "fp8",
    "INT4": "int4",
}


def _floats(graph: GraphProto) -> int:
    from onnx import TensorProto

    return sum(tensor.data_type == TensorProto.FLOAT for tensor in graph.initializer)


def _beyond_float16(graph: GraphProto) -> list[str]:
    """Weights that lose more than digits."""
    import numpy as np
    from onnx import TensorProto, numpy_helper

    found = []
    for tensor in graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            values = np.abs(numpy_helper.to_array(tensor))
            if np.any((values > _LARGEST) & np.isfinite(values)):
                found.append(tensor.name)
    if not found:
        return []
    more = ", …" if len(found) > _LISTED else ""
    return [f"values beyond ±{_LARGEST:.0f} are cut off in the weights {', '.join(found[:_LISTED])}{more}"]


def _account(before: int, graph: GraphProto, operators: set[str], layers: set[str]) -> list[str]:
    """What computes in float32 still."""
    told = [f"{before - _floats(graph)} of {before} float32 weights converted"]
    kept = (node for node in graph.node if node.op_type in operators or node.name in layers)
    stay = Counter(node.op_type for node in kept)
    if stay:
        listed = ", ".join(f"{count} {name}" for name, count in sorted(stay.items()))
        told.append(f"these stay in float32, with casts around them: {listed}")
    return told


def fail(order: Order, error: TrtFarmError) -> NoReturn:
    """Names in a model may be of any length; the answer must fit into a pipe."""
    hint = error.hint and error.hint[:_ANSWER_CHARACTERS]
    view = ErrorView(code=error.code, message=error.message[:_ANSWER_CHARACTERS], hint=hint)
    os.write(order.answer, view.model_dump_json().encode("utf-8", "replace"))
    sys.exit(1)


if __name__ == "__main__":
    main()
