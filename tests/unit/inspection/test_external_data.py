"""Where a model's external data may lie, and where it is looked for."""

import os
import sys

import onnx
import pytest
from onnx import helper

from tests.unit.inspection.graphs import branch, function, model, node, value, weight
from trtfarm.contract.models import check_location
from trtfarm.errors import ExternalDataPathError
from trtfarm.inspection.inspect import check_ranges, inspect_model

ATTACKS = [
    "", ".", "..", "../w", "a/../../w", "a/../w", "/etc/passwd", "//host/w", "C:\\w", "c:w", "\\\\host\\w",
    "..\\w", "a\\b", "a\0b", "a//b", "./w", "a/.", "a/", "/proc/self/environ", "x" * 256, "ü" * 128, "a\nb",
    "\x1b[31mw", "\uff0e\uff0e/w", "\uff0fetc", "a\u202eb", "\u2025/w", "\ud800",
]  # fmt: skip


@pytest.mark.parametrize("location", ATTACKS)
def test_forbidden_locations(location):
    with pytest.raises(ExternalDataPathError) as caught:
        check_location(location)
    assert caught.value.code == "EXTERNAL_DATA_FORBIDDEN_PATH"
    str(caught.value).encode()


@pytest.mark.parametrize(
    "location", ["w", "model.onnx_data", "a/b/c.bin", "x" * 255, "...", "a..b", "größe 1.bin", ".w"]
)
def test_allowed_locations(location):
    assert check_location(location) == location


PLACES = {
    "initializer": lambda t: model(initializers=[t]),
    "attribute": lambda t: model([node("Constant", [], ["y"], value=t)]),
    "attribute list": lambda t: model([node("Mine", ["x"], ["y"], values=[t])]),
    "subgraph": lambda t: model(
        [node("If", ["x"], ["y"], then_branch=branch(node("Constant", [], ["b"], value=t)))]
    ),
    "subgraph initializer": lambda t: model(
        [node("If", ["x"], ["y"], then_branch=helper.make_graph([], "b", [], [value("w")], [t]))]
    ),
}


def _training(tensor):
    made = model()
    made.training_info.add().algorithm.initializer.append(tensor)
    return made


def _mistyped(tensor):
    """An attribute that holds a tensor and says that it is a number."""
    made = model()
    made.graph.node[0].attribute.add(name="a", type=onnx.AttributeProto.INT, t=tensor)
    return made


def _sparse_attribute(tensor):
    made = model()
    attribute = made.graph.node[0].attribute.add(name="a", type=onnx.AttributeProto.SPARSE_TENSORS)
    attribute.sparse_tensors.add().indices.CopyFrom(tensor)
    return made


def _function_default(tensor):
    made = function("f0")
    made.attribute_proto.add(name="a", type=onnx.AttributeProto.TENSOR, t=tensor)
    return model(functions=[made])


PLACES |= {
    "training": _training,
    "mistyped": _mistyped,
    "sparse": _sparse_attribute,
    "default": _function_default,
}


@pytest.mark.parametrize("place", PLACES)
def test_external_data_is_found_everywhere(place, look, refused):
    made = PLACES[place](weight(location="data/w.bin"))
    assert look(made).external_data == ("data/w.bin",)
    refused("EXTERNAL_DATA_FORBIDDEN_PATH", PLACES[place](weight(location="../w.bin")))


def test_no_location(refused):
    refused("EXTERNAL_DATA_FORBIDDEN_PATH", model(initializers=[weight(offset="0")]))


def test_location_that_is_not_utf8(refused):
    data = model(initializers=[weight(location="mangled")]).SerializeToString()
    refused("EXTERNAL_DATA_FORBIDDEN_PATH", data.replace(b"mangled", b"mang\xff\xfe\xfd"))


@pytest.mark.parametrize("key", ["__class__", "basepath", "Location", ""])
def test_unknown_keys(key, refused):
    refused("EXTERNAL_DATA_UNKNOWN_KEY", model(initializers=[weight(location="w", **{key: "x"})]))


def test_repeated_key(refused):
    tensor = weight(location="w")
    tensor.external_data.add(key="location", value="v")
    refused("EXTERNAL_DATA_UNKNOWN_KEY", model(initializers=[tensor]), match="twice")


@pytest.mark.parametrize(
    "number", ["-1", "x", "", "1.5", "1e3", "0x10", " 1", "1_0", "٣", str(2**63), "9" * 5000]
)
@pytest.mark.parametrize("key", ["offset", "length"])
def test_bad_numbers(key, number, refused):
    refused("EXTERNAL_DATA_RANGE", model(initializers=[weight(location="w", **{key: number})]))


def test_ranges(look, refused, tmp_path):
    made = model(initializers=[weight(location="w", offset="100", length="16")])
    assert look(made, {"w": 116, "other": 0}).external_data == ("w",)
    check_ranges(tmp_path / "model.onnx", {"w": 116})
    refused("EXTERNAL_DATA_RANGE", made, {"w": 115}, match="up to byte 116; the file has 115")
    refused("EXTERNAL_DATA_MISSING", made, {"v": 999}, match="'w'")
    huge = model(initializers=[weight(location="w", offset=str(2**60), length=str(2**60))])
    refused("EXTERNAL_DATA_RANGE", huge, {"w": 2**40})
    refused("EXTERNAL_DATA_RANGE", model(initializers=[weight(location="w", offset="9")]), {"w": 8})


def test_no_other_file_is_touched(tmp_path):
    """Python reports every file that it opens to its audit hooks; a link loop would fail on a stat."""
    (tmp_path / "w").symlink_to("w")
    path = tmp_path / "model.onnx"
    path.write_bytes(model(initializers=[weight(location="w")]).SerializeToString())
    opened = []
    watching = True
    sys.addaudithook(lambda event, args: opened.append(args[0]) if watching and event == "open" else None)
    info = inspect_model(path)
    watching = False
    assert info.external_data == ("w",)
    assert {os.fspath(name) for name in opened} == {os.fspath(path)}
