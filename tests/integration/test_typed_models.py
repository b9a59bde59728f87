"""--fp16 with the real TensorRT-RTX, whose networks are strongly typed: the model is converted first."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.acceptance import models
from tests.integration.rtx_child import Child
from trtfarm.contract.digest import Digest
from trtfarm.contract.spec import BuildSpec
from trtfarm.contract.target import Target
from trtfarm.contract.trtexec import parse_build_options
from trtfarm.contract.typed import CONVERTER
from trtfarm.errors import InvalidRequestError
from trtfarm.sandbox import Mode
from trtfarm_worker.conversion.convert import (
    TYPED,
    Bounds,
    ConversionError,
    ConverterUnavailableError,
    to_fp16,
)
from trtfarm_worker.model_cache import CachedModel

TARGET = Target(gpu="cc-8.9", compute_capability="8.9", runtime="tensorrt-rtx-1.7.1.116")


@pytest.fixture(scope="module")
def child(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Child]:
    with Child(tmp_path_factory.mktemp("child")) as child:
        yield child


def spec(*options: str) -> BuildSpec:
    config = parse_build_options(["--fp16", *options]).config
    return BuildSpec(model=Digest.of_bytes(b""), target=TARGET, config=config)


def converted(spec: BuildSpec, model: Path, folder: Path) -> Path:
    """The typed model, in a folder of its own below ``folder``."""
    out = Path(tempfile.mkdtemp(dir=folder))
    log = out.with_suffix(".log")
    bounds = Bounds(out, log, 4 << 30, 1 << 30, Mode.AUTO, lambda _: None)
    to_fp16(spec, model, bounds)
    return out / TYPED


def perceptron(path: Path, *, external: bool = False) -> Path:
    """Two layers of 512, with a Softmax, a TopK (which stays in float32) and an input of indices."""
    rng = np.random.default_rng(0)
    weights = [
        numpy_helper.from_array((rng.standard_normal((512, 512)) / 23).astype(np.float32), name)
        for name in ("w0", "w1")
    ]
    weights.append(numpy_helper.from_array(np.array([5], np.int64), "k"))
    nodes = [
        helper.make_node("MatMul", ["x", "w0"], ["a"], name="first"),
        helper.make_node("Relu", ["a"], ["b"], name="relu"),
        helper.make_node("MatMul", ["b", "w1"], ["c"], name="second"),
        helper.make_node("Gather", ["c", "rows"], ["d"], name="gather"),
        helper.make_node("Softmax", ["d"], ["y"], name="softmax"),
        helper.make_node("TopK", ["y", "k"], ["best", "where"], name="top"),
    ]
    graph = helper.make_graph(
        nodes,
        "perceptron",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, [8, 512]),
            helper.make_tensor_value_info("rows", TensorProto.INT64, [4]),
        ],
        [
            helper.make_tensor_value_info("y", TensorProto.FLOAT, [4, 512]),
            helper.make_tensor_value_info("best", TensorProto.FLOAT, [4, 5]),
            helper.make_tensor_value_info("where", TensorProto.INT64, [4, 5]),
        ],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save_model(model, path, save_as_external_data=external, location="weights.bin")
    return path


def run(path: Path, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, feeds)


def types(path: Path) -> dict[str, str]:
    graph = onnx.load(path, load_external_data=False).graph
    names = TensorProto.DataType.Name
    return {each.name: names(each.type.tensor_type.elem_type) for each in (*graph.input, *graph.output)}


@pytest.mark.parametrize("external", [False, True])
def test_outputs_stay_close_and_types_as_they_were(tmp_path: Path, external: bool) -> None:
    model = perceptron(tmp_path / "model.onnx", external=external)
    before = model.read_bytes()
    typed = converted(spec(), model, tmp_path)
    assert model.read_bytes() == before
    assert types(typed) == types(model)
    rng = np.random.default_rng(1)
    feeds = {"x": rng.standard_normal((8, 512)).astype(np.float32), "rows": np.array([3, 0, 7, 1])}
    expected, got = run(model, feeds), run(typed, feeds)
    assert [each.dtype for each in got] == [each.dtype for each in expected]
    assert 0 < np.abs(got[0] - expected[0]).max() < 2e-3 * expected[0].max() + 1e-6
    stored = onnx.load(typed).graph.initializer
    assert {each.name: each.data_type for each in stored} == {
        "w0": TensorProto.FLOAT16,
        "w1": TensorProto.FLOAT16,
        "k": TensorProto.INT64,
    }
    assert typed.with_name("typed.onnx.data").exists() is external


def test_the_plan_has_float16_weights(child: Child, tmp_path: Path) -> None:
    model = perceptron(tmp_path / "model.onnx")
    plain, half = child.build(model), child.build(model, ["--fp16"])
    assert half.error is None
    assert plain.error is None
    weights_bytes = 2 * 512 * 512 * 4
    assert len(plain.plan) - len(half.plan) > 0.3 * weights_bytes  # kernels are in it too
    assert half.io["inputs"] == plain.io["inputs"]
    assert half.io["outputs"] == plain.io["outputs"]
    assert "fp16: 2 of 2 float32 weights converted" in half.log
    assert "these stay in float32, with casts around them: 1 TopK" in half.log
    assert child.build(model, ["--fp16"]).plan == half.plan


@pytest.mark.parametrize("name", ["inception_v1", "resnet50", "shufflenet", "squeezenet"])
def test_real_topologies(child: Child, name: str) -> None:
    plain, half = child.build(models.light(name)), child.build(models.light(name), ["--fp16"])
    assert half.error is None
    assert len(half.plan) < len(plain.plan)
    assert half.io["inputs"] == plain.io["inputs"]
    assert half.io["outputs"] == plain.io["outputs"]


def test_io_formats_say_otherwise(child: Child, tmp_path: Path) -> None:
    model = models.small(tmp_path / "small.onnx", 0)
    half = child.build(model, ["--fp16", "--inputIOFormats=fp16:chw", "--outputIOFormats=fp32:chw"])
    assert half.error is None
    assert [each["dtype"] for each in half.io["inputs"]] == ["float16"]
    assert [each["dtype"] for each in half.io["outputs"]] == ["float32"]
    refused = child.build(model, ["--fp16", "--inputIOFormats=int8:chw"])
    assert refused.code == "VALIDATION_ERROR"
    assert refused.error is not None
    assert refused.error.message.startswith("--inputIOFormats=int8: x is fp32, ")


def test_layers_that_stay_in_float32(child: Child, tmp_path: Path) -> None:
    model = perceptron(tmp_path / "model.onnx")
    constraints = "--precisionConstraints=obey"
    typed = converted(spec(constraints, "--layerPrecisions=s*:fp32,so*:fp16,first:fp16"), model, tmp_path)
    stored = {each.name: each.data_type for each in onnx.load(typed).graph.initializer}
    assert stored["w0"] == TensorProto.FLOAT16
    assert stored["w1"] == TensorProto.FLOAT  # of second, which s* names
    half = child.build(model, ["--fp16", constraints, "--layerPrecisions=second:fp32"])
    assert half.error is None
    assert "1 of 2 float32 weights converted" in half.log
    assert "casts around them: 1 MatMul, 1 TopK" in half.log
    assert half.plan != child.build(model, ["--fp16"]).plan
    unknown = child.build(model, ["--fp16", constraints, "--layerPrecisions=third:fp32"])
    assert unknown.code == "VALIDATION_ERROR"
    assert unknown.error is not None
    assert unknown.error.message == "--layerPrecisions: the model has no node 'third'."
    assert "first, relu, second" in (unknown.error.hint or "")


def test_weights_that_float16_cannot_hold_are_told(child: Child, tmp_path: Path) -> None:
    model = onnx.load(perceptron(tmp_path / "model.onnx"))
    weights = numpy_helper.to_array(model.graph.initializer[0]).copy()
    weights[0, 0] = 1e6
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(weights, "w0"))
    onnx.save(model, tmp_path / "large.onnx")
    half = child.build(tmp_path / "large.onnx", ["--fp16"])
    assert half.error is None
    assert "fp16: values beyond ±65504 are cut off in the weights w0\n" in half.log
    assert "cut off" not in child.build(tmp_path / "model.onnx", ["--fp16"]).log


def chain(path: Path, nodes: list[onnx.NodeProto], width: int, **weights: np.ndarray) -> Path:
    """``x`` of 1x1x1xWIDTH to ``y`` of any width."""
    tensor = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "chain",
        [tensor("x", TensorProto.FLOAT, [1, 1, 1, width])],
        [tensor("y", TensorProto.FLOAT, [1, 1, 1, "any"])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    path.write_bytes(model.SerializeToString())
    return path


def test_shapes_are_computed_exactly(child: Child, tmp_path: Path) -> None:
    """In float16, 3001 is 3000."""
    node = helper.make_node
    factors = numpy_helper.from_array(np.array([1, 1, 1, 2], np.float32))
    nodes = [
        node("Shape", ["x"], ["shape"]),
        node("Cast", ["shape"], ["floats"], to=TensorProto.FLOAT),
        node("Constant", [], ["factors"], value=factors),
        node("Mul", ["floats", "factors"], ["larger"]),
        node("Cast", ["larger"], ["sizes"], to=TensorProto.INT64),
        node("Resize", ["x", "", "", "sizes"], ["y"], mode="nearest"),
    ]
    model = chain(tmp_path / "resize.onnx", nodes, 3001)
    feeds = {"x": np.ones((1, 1, 1, 3001), np.float32)}
    assert (
        run(converted(spec(), model, tmp_path), feeds)[0].shape
        == run(model, feeds)[0].shape
        == (1, 1, 1, 6002)
    )
    half = child.build(model, ["--fp16"])
    assert half.error is None
    assert half.io["outputs"][0]["shape"] == [1, 1, 1, 6002]


def test_neighbours_in_float32_hand_over_float32(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Mul", [a, w], [b], name=b) for a, w, b in (("x", "up", "m"), ("m", "down", "y"))
    ]
    weights = {"up": np.array([1e5], np.float32), "down": np.array([1e-5], np.float32)}
    model = chain(tmp_path / "chain.onnx", nodes, 4, **weights)
    feeds = {"x": np.array([1, 2, 3, 4], np.float32).reshape(1, 1, 1, 4)}
    exact = spec("--precisionConstraints=obey", "--layerPrecisions=*:fp32")
    for what, kept in ((exact, True), (spec(), False)):
        (got,) = run(converted(what, model, tmp_path), feeds)
        assert np.allclose(got, feeds["x"], rtol=1e-3) is kept


def test_dynamic_shapes(child: Child, tmp_path: Path) -> None:
    model = models.dynamic(tmp_path / "dynamic.onnx")
    shapes = [f"--{each}Shapes=x:{size}x3x32x32" for each, size in (("min", 1), ("opt", 4), ("max", 8))]
    half = child.build(model, ["--fp16", *shapes])
    assert half.error is None
    assert half.io["inputs"][0]["shape"] == [-1, 3, -1, -1]


def test_a_model_is_converted_once_for_all_targets(child: Child, tmp_path: Path) -> None:
    model = models.small(tmp_path / "small.onnx", 0)
    cached = CachedModel(model, tmp_path / "kept", model.stat().st_size)
    alone = child.build(model, ["--fp16"])
    assert "converting to fp16" in child.stages
    first = child.build(model, ["--fp16"], cached)
    assert "converting to fp16" in child.stages
    again = child.build(model, ["--fp16"], cached)
    assert "converting to fp16" not in child.stages
    assert "fp16: 1 of 1 float32 weights converted" in again.log
    assert alone.plan == first.plan == again.plan != b""
    assert child.build(model, ["--fp16", "--inputIOFormats=fp16:chw"], cached).plan != first.plan
    assert "converting to fp16" in child.stages
    assert len(list(cached.typed.iterdir())) == 2


def test_what_cannot_be_converted(child: Child, tmp_path: Path) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"this is no model")
    refused = child.build(broken, ["--fp16"])
    assert refused.code == "CONVERSION_FAILED"
    assert refused.error is not None
    assert "without --fp16" in (refused.error.hint or "")
    assert "Traceback" in refused.log


def test_a_refused_model_is_said_to_be_converted(child: Child, tmp_path: Path) -> None:
    model = models.with_unknown_operator(tmp_path / "unknown.onnx")
    refused = child.build(model, ["--fp16"])
    assert refused.code == "ONNX_UNSUPPORTED_OP"
    assert refused.error is not None
    assert f"It was converted to fp16 first, by {CONVERTER}" in (refused.error.hint or "")


def test_the_converter_must_be_the_one_in_the_key(tmp_path: Path) -> None:
    other = spec().model_copy(update={"converter": "onnxruntime-1.0.0"})
    with pytest.raises(
        ConverterUnavailableError, match=r"by onnxruntime 1\.0\.0; this worker has onnxruntime 1"
    ):
        converted(other, tmp_path / "model.onnx", tmp_path)
    none = spec().model_copy(update={"converter": "no-such-package-1.0.0"})
    with pytest.raises(ConverterUnavailableError, match="has no no-such-package"):
        converted(none, tmp_path / "model.onnx", tmp_path)


def test_errors_of_the_process_are_exceptions(tmp_path: Path) -> None:
    model = models.small(tmp_path / "small.onnx", 0)
    with pytest.raises(InvalidRequestError, match="has 2 formats for 1 tensors"):
        converted(spec("--inputIOFormats=fp16:chw,fp32:chw"), model, tmp_path)
    with pytest.raises(ConversionError):
        converted(spec(), tmp_path / "missing.onnx", tmp_path)
