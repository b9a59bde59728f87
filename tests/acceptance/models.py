"""The models that the tests build: real topologies from the onnx package, and small ones made here."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

_spec = importlib.util.find_spec("onnx")
assert _spec is not None
assert _spec.origin is not None
LIGHT_FOLDER = Path(_spec.origin).parent / "backend/test/data/light"
LIGHT = tuple(sorted(path.stem.removeprefix("light_") for path in LIGHT_FOLDER.glob("light_*.onnx")))


def light(name: str) -> Path:
    return LIGHT_FOLDER / f"light_{name}.onnx"


def _save(path: Path, graph: onnx.GraphProto, *domains: str) -> Path:
    opsets = [helper.make_opsetid("", 17), *(helper.make_opsetid(domain, 1) for domain in domains)]
    path.write_bytes(helper.make_model(graph, opset_imports=opsets, ir_version=9).SerializeToString())
    return path


def small(path: Path, seed: int) -> Path:
    """A MatMul whose weights depend on ``seed``: another model each time, built in a moment."""
    weights = np.random.default_rng(seed).standard_normal((16, 8)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"], name="matmul")],
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [4, 16])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [4, 8])],
        [numpy_helper.from_array(weights, "w")],
    )
    return _save(path, graph)


def dynamic(path: Path) -> Path:
    """A convolution whose batch and picture size are known at run time only."""
    weights = np.random.default_rng(0).standard_normal((8, 3, 3, 3)).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["x", "w"], ["c"], name="conv", pads=[1, 1, 1, 1]),
            helper.make_node("Relu", ["c"], ["y"], name="relu"),
        ],
        "dynamic",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, "h", "w"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 8, "h", "w"])],
        [numpy_helper.from_array(weights, "w")],
    )
    return _save(path, graph)


def with_unknown_operator(path: Path) -> Path:
    graph = helper.make_graph(
        [
            helper.make_node("Relu", ["x"], ["r"], name="first"),
            helper.make_node("FancyAttention", ["r"], ["y"], name="the_odd_one", domain="com.example"),
        ],
        "unknown",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 8])],
    )
    return _save(path, graph, "com.example")


def with_external_data(path: Path, layers: int, side: int) -> Path:
    """A chain of float16 MatMuls of ``side`` by ``side``, with all weights in a file beside it.

    The weights are streamed to the disk: the model may be larger than the memory.
    """
    weights, nodes = [], []
    matrix_bytes = side * side * 2
    rng = np.random.default_rng(0)
    band = rng.standard_normal((side // 64, side)).astype(np.float16)
    with path.with_suffix(".bin").open("wb") as file:
        for layer in range(layers):
            weight = TensorProto(name=f"w{layer}", data_type=TensorProto.FLOAT16, dims=[side, side])
            weight.data_location = TensorProto.EXTERNAL
            where = {"location": path.with_suffix(".bin").name, "offset": file.tell(), "length": matrix_bytes}
            for key, value in where.items():
                weight.external_data.add(key=key, value=str(value))
            weights.append(weight)
            nodes.append(
                helper.make_node("MatMul", [f"t{layer}", f"w{layer}"], [f"t{layer + 1}"], name=f"m{layer}")
            )
            for part in range(64):
                band[0, 0] = layer * 64 + part  # no two parts are alike
                file.write(band.tobytes())
    graph = helper.make_graph(
        nodes,
        "external",
        [helper.make_tensor_value_info("t0", TensorProto.FLOAT16, [1, side])],
        [helper.make_tensor_value_info(f"t{layers}", TensorProto.FLOAT16, [1, side])],
        weights,
    )
    return _save(path, graph)


def padded(path: Path, size_bytes: int) -> Path:
    """A small model of at least so many bytes."""
    weights = np.random.default_rng(size_bytes).standard_normal((size_bytes // 64 + 1, 16)).astype(np.float32)
    rows = weights.shape[0]
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"], name="matmul")],
        "padded",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, rows])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 16])],
        [numpy_helper.from_array(weights, "w")],
    )
    return _save(path, graph)
