"""Small graphs, right and wrong, and where the onnx package has its test models."""

from pathlib import Path

import onnx
from onnx import TensorProto, helper

LIGHT = Path(onnx.__file__).parent / "backend/test/data/light"
FLOAT = TensorProto.FLOAT


def value(name, shape=(1, 4), dtype=FLOAT):
    return helper.make_tensor_value_info(name, dtype, shape)


def node(op, inputs, outputs, **attributes):
    return helper.make_node(op, inputs, outputs, **attributes)


def weight(name="w", **external):
    tensor = TensorProto(name=name, data_type=FLOAT, dims=[4])
    if not external:
        tensor.raw_data = bytes(16)
        return tensor
    tensor.data_location = TensorProto.EXTERNAL
    for key, text in external.items():
        tensor.external_data.add(key=key, value=text)
    return tensor


def model(nodes=None, inputs=None, outputs=None, initializers=(), **rest):
    graph = helper.make_graph(
        [node("Add", ["x", "w"], ["y"])] if nodes is None else nodes,
        "g",
        [value("x")] if inputs is None else inputs,
        [value("y")] if outputs is None else outputs,
        initializers or [weight()],
    )
    rest.setdefault("opset_imports", [helper.make_opsetid("", 17)])
    return helper.make_model(graph, **{"ir_version": 8, **rest})


def branch(*nodes, output="b"):
    return helper.make_graph(list(nodes), "branch", [], [value(output)])


def function(name, *called, tensor=None):
    inner = ["a", *(f"t{number}" for number in range(len(called)))]
    nodes = [node(op, [a], [b], domain="f") for op, a, b in zip(called, inner, inner[1:], strict=False)]
    if tensor:
        nodes.append(node("Constant", [], ["c"], value=tensor))
    nodes.append(node("Relu", [inner[-1]], ["r"]))
    return helper.make_function("f", name, ["a"], ["r"], nodes, [helper.make_opsetid("", 17)])
