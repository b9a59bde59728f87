"""What is an ONNX file and what is none."""

import os
import random

import onnx
import pytest
from onnx import TensorProto, helper

from tests.unit.inspection.graphs import LIGHT, model, node, value, weight
from trtfarm.contract.models import ModelInfo
from trtfarm.errors import ModelError, NotOnnxError
from trtfarm.inspection.inspect import inspect_model


@pytest.mark.parametrize("path", sorted(LIGHT.glob("*.onnx")), ids=lambda path: path.stem)
def test_light_models(path):
    info = inspect_model(path)
    (tensor,) = info.inputs
    assert tensor.dtype == "float"
    assert tensor.shape == (1, 3, 224, 224)
    assert not tensor.dynamic
    assert len(info.outputs) == 1
    assert info.opsets == {"ai.onnx": 9}
    assert info.node_count == len(onnx.load(path).graph.node)
    assert info.external_data == ()
    assert ModelInfo.model_validate_json(info.model_dump_json()) == info


def test_there_are_nine_light_models():
    assert len(list(LIGHT.glob("*.onnx"))) == 9


def test_dynamic_axes_and_types(look):
    inputs = [
        value("x", ("batch", 4)),
        value("i", None, TensorProto.INT64),
        value("n", (-1, 2)),
        value("s", ()),
    ]
    info = look(model(inputs=inputs))
    assert [(t.shape, t.dtype, t.dynamic) for t in info.inputs] == [
        ((-1, 4), "float", True),
        (None, "int64", True),
        ((-1, 2), "float", True),
        ((), "float", False),
    ]


def test_inputs_that_are_initializers_are_not_inputs(look):
    info = look(model(inputs=[value("x"), value("w", (4,))], ir_version=3))
    assert [tensor.name for tensor in info.inputs] == ["x"]


def test_sparse_initializers_are_known_names(look):
    made = model()
    del made.graph.initializer[:]
    sparse = made.graph.sparse_initializer.add()
    sparse.values.CopyFrom(weight("w", location="values.bin"))
    sparse.indices.CopyFrom(weight("", location="indices.bin"))
    assert look(made).external_data == ("indices.bin", "values.bin")


def test_other_order_is_fine(look):
    nodes = [node("Relu", ["a"], ["y"]), node("Add", ["x", "w"], ["a"])]
    assert look(model(nodes)).node_count == 2


def test_custom_operators_are_fine(look):
    nodes = [node("Mine", ["x", "", "w"], ["y", ""], domain="my.domain")]
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("my.domain", 1)]
    assert look(model(nodes, opset_imports=opsets)).opsets == {"ai.onnx": 17, "my.domain": 1}


def test_same_opset_twice_is_fine(look):
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx", 17)]
    assert look(model(opset_imports=opsets)).opsets == {"ai.onnx": 17}


@pytest.mark.parametrize("name", ["light_resnet50", "light_squeezenet"])
@pytest.mark.parametrize("part", range(16))
def test_truncated(name, part, look):
    data = (LIGHT / f"{name}.onnx").read_bytes()
    with pytest.raises(ModelError) as caught:
        look(data[: len(data) * part // 16])
    assert caught.value.code == ("ONNX_TRUNCATED" if part else "NOT_ONNX")


def test_truncated_names_what_is_missing(refused):
    data = (LIGHT / "light_squeezenet.onnx").read_bytes()
    assert 900 < refused("ONNX_TRUNCATED", data[:-1000], match="too early").details["missing_bytes"] <= 1000


def test_every_truncation_of_a_small_model(look):
    data = model().SerializeToString()
    for length in range(len(data)):
        with pytest.raises(ModelError):
            look(data[:length])


def test_trailing_garbage(look):
    data, rng = model().SerializeToString(), random.Random(2)
    for _ in range(200):
        try:
            info = look(data + rng.randbytes(rng.randrange(1, 60)))
        except ModelError:
            continue
        assert info.node_count == 1


def test_random_bytes(look):
    rng = random.Random(3)
    for _ in range(300):
        with pytest.raises(ModelError):
            look(rng.randbytes(rng.randrange(1, 400)))


def test_other_protobuf(look):
    for path in LIGHT.glob("*.pb"):
        with pytest.raises(ModelError):
            look(path.read_bytes())


def test_damaged_in_the_middle(refused):
    data = bytearray(model().SerializeToString())
    start = data.index(b"Add") - 2
    data[start : start + 2] = b"\xff\xff"
    refused("ONNX_PARSE_ERROR", bytes(data))


def test_unreadable_paths(tmp_path):
    with pytest.raises(ModelError, match="No such file"):
        inspect_model(tmp_path / "absent.onnx")
    with pytest.raises(NotOnnxError, match="is not a file"):
        inspect_model(tmp_path)
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(NotOnnxError, match="is not a file"):
        inspect_model(tmp_path / "fifo")


def test_more_than_protobuf_can(tmp_path):
    path = tmp_path / "model.onnx"
    with path.open("wb") as file:
        file.write(model().SerializeToString())
        file.truncate(2**31)  # sparse
    with pytest.raises(ModelError, match="external data") as caught:
        inspect_model(path)
    assert caught.value.code == "ONNX_PROTO_TOO_LARGE"
