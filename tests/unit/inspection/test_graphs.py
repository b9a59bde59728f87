"""Graphs that nobody vouches for."""

from itertools import pairwise

import onnx
import pytest
from onnx import helper

from tests.unit.inspection.graphs import branch, function, model, node, value, weight


def _nested(depth, inner):
    """An If in an If in an If; written by hand, as protobuf refuses to copy what it would not read."""

    def field(number, data):
        size, length = b"", len(data)
        while length > 127:
            size += bytes([length & 127 | 128])
            length >>= 7
        return bytes([number << 3 | 2]) + size + bytes([length]) + data

    graph = inner
    for _ in range(depth):
        attribute = field(1, b"then_branch") + field(6, graph) + b"\xa0\x01\x05"
        graph = field(1, field(1, b"x") + field(2, b"y") + field(4, b"If") + field(5, attribute))
        graph += inner[inner.index(b"\x62") :]  # the same outputs
    return b"\x08\x08" + field(7, graph) + field(8, b"\x10\x11")


@pytest.mark.parametrize(("depth", "fine"), [(5, True), (29, True), (1000, False), (10_000, False)])
def test_nesting(depth, fine, look, refused):
    inner = onnx.GraphProto(node=[node("Relu", ["x"], ["y"])], output=[value("y", ())]).SerializeToString()
    data = _nested(depth, inner)
    if fine:
        refused("ONNX_INVALID_GRAPH", data, match="nothing produces")
    else:
        refused("ONNX_TOO_DEEP", data)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"nodes": []}, "no nodes"),
        ({"outputs": []}, "no outputs"),
        ({"nodes": [node("Add", ["x", "gone"], ["y"])]}, "'gone'"),
        ({"outputs": [value("gone")]}, "'gone'"),
        ({"nodes": [node("Relu", ["x"], ["y"]), node("Abs", ["x"], ["y"])]}, "'y' is given to two"),
        ({"nodes": [node("Relu", ["x"], ["x"])]}, "'x' is given to two"),
        ({"nodes": [node("Relu", ["x"], ["y", "y"])]}, "'y' is given to two"),
        ({"inputs": [value("x"), value("x")]}, "input name 'x'"),
        ({"inputs": [value("x"), value("")]}, "no name"),
        ({"initializers": [weight(), weight()]}, "initializer name 'w'"),
        (
            {"nodes": [node("Add", ["x", "b"], ["a"]), node("Relu", ["a"], ["b"])], "outputs": [value("a")]},
            "own output",
        ),
        ({"nodes": [node("Add", ["x", "y"], ["y"])]}, "own output"),
        ({"inputs": [value("x", (1,), 77)]}, "element type 77"),
        ({"inputs": [value("x"), value("a\0b")]}, "not text"),
    ],
)
def test_invalid_graphs(arguments, match, refused):
    refused("ONNX_INVALID_GRAPH", model(**arguments), match=match)


def test_no_graph(refused):
    refused("NOT_ONNX", onnx.ModelProto(producer_name="something").SerializeToString())
    made = model()
    made.ClearField("graph")
    refused("ONNX_INVALID_GRAPH", made)


def test_names_that_are_not_utf8(refused):
    data = model(inputs=[value("x"), value("mangled")]).SerializeToString()
    refused("ONNX_INVALID_GRAPH", data.replace(b"mangled", b"mang\xff\xfe\xfd"), match="not text")


@pytest.mark.parametrize("place", ["name", "op_type", "domain", "attribute", "output", "weight"])
@pytest.mark.parametrize("bad", [b"\xff\xfe\xfd", b"a\0b"])
def test_other_names_that_are_not_text(place, bad, refused):
    """TensorRT logs them, and the process that takes its log ends."""
    relu = node("Relu", ["x"], ["z"], alpha=1.0)
    made = model([relu], outputs=[value("x")], initializers=[weight()])
    _rename(made, place, "QQQ")
    refused("ONNX_INVALID_GRAPH", made.SerializeToString().replace(b"QQQ", bad), match="not text")


def _rename(made, place, name):
    relu = made.graph.node[0]
    if place == "attribute":
        relu.attribute[0].name = name
    elif place == "output":
        relu.output[0] = name
    elif place == "weight":
        made.graph.initializer[0].name = name
    else:
        setattr(relu, place, name)


def test_subgraphs_see_outer_names(look, refused):
    outer = branch(node("Add", ["x", "w"], ["b"]))
    info = look(model([node("If", ["x"], ["y"], then_branch=outer, else_branch=outer)]))
    assert info.node_count == 3
    outer = branch(node("Add", ["x", "gone"], ["b"]))
    refused("ONNX_INVALID_GRAPH", model([node("If", ["x"], ["y"], then_branch=outer)]), match="'gone'")


@pytest.mark.parametrize(
    ("ir_version", "opsets"),
    [(0, {"": 17}), (9999, {"": 17}), (-1, {"": 17}), (8, {}), (8, {"": 0}), (8, {"": 9999}), (8, {"": -1})],
)
def test_versions(ir_version, opsets, refused):
    imports = [helper.make_opsetid(domain, version) for domain, version in opsets.items()]
    made = model()
    made.ir_version = ir_version
    del made.opset_import[:]
    made.opset_import.extend(imports)
    refused("ONNX_UNSUPPORTED_OPSET", made)


def test_two_opsets_of_one_domain(refused):
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx", 18)]
    refused("ONNX_UNSUPPORTED_OPSET", model(opset_imports=opsets), match="two versions")


def test_before_opsets(look):
    made = model(ir_version=2)
    del made.opset_import[:]
    assert look(made).opsets == {"ai.onnx": 1}


def test_too_many_nodes(look, refused):
    names = ["x", *(f"v{number}" for number in range(20))]
    nodes = [node("Relu", [a], [b]) for a, b in pairwise(names)]
    made = model(nodes, outputs=[value("v19")])
    assert look(made, max_nodes=20).node_count == 20
    refused("ONNX_TOO_COMPLEX", made, match="20 nodes; 19", max_nodes=19)
    inner = branch(node("Relu", ["x"], ["t"]), node("Relu", ["t"], ["b"]))
    refused("ONNX_TOO_COMPLEX", model([node("If", ["x"], ["y"], then_branch=inner)]), max_nodes=2)


def test_too_many_inputs(refused):
    inputs = [value(f"x{number}") for number in range(10_001)]
    refused("ONNX_TOO_COMPLEX", model(inputs=[value("x"), *inputs]), match="inputs and outputs")


def test_functions(look, refused):
    call = [node("f0", ["x"], ["y"], domain="f")]
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("f", 1)]
    laughs = [function(f"f{n}", f"f{n + 1}", f"f{n + 1}") for n in range(30)] + [function("f30")]
    refused("ONNX_FUNCTION_EXPANSION", model(call, functions=laughs, opset_imports=opsets), match="expand")
    loop = [function("f0", "f1"), function("f1", "f0")]
    refused("ONNX_FUNCTION_EXPANSION", model(call, functions=loop, opset_imports=opsets), match="itself")
    twice = [function("f0"), function("f0")]
    refused("ONNX_INVALID_GRAPH", model(call, functions=twice, opset_imports=opsets))
    fine = [function("f0", "f1"), function("f1", tensor=weight("c", location="c.bin"))]
    info = look(model(call, functions=fine, opset_imports=opsets))
    assert info.node_count == 5
    assert info.external_data == ("c.bin",)
