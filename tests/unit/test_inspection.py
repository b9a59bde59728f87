"""Reading ONNX files that nobody vouches for."""

import contextlib
import os
import random
import sys
from itertools import pairwise
from pathlib import Path

import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from trtfarm.contract.digest import Digest
from trtfarm.contract.models import ExternalFile, ModelInfo, ModelManifest, check_location
from trtfarm.contract.value import canonical_json
from trtfarm.errors import (
    ExternalDataMissingError,
    ExternalDataPathError,
    ModelError,
    NotOnnxError,
    TrtFarmError,
)
from trtfarm.inspection.inspect import check_ranges, inspect_model
from trtfarm.inspection.manifest import manifest_of

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


@pytest.fixture
def look(tmp_path):
    def inspect(data, *args, **kwargs):
        path = tmp_path / "model.onnx"
        path.write_bytes(data if isinstance(data, bytes) else data.SerializeToString())
        return inspect_model(path, *args, **kwargs)

    return inspect


@pytest.fixture
def refused(look):
    def check(code, data, *args, match=None, **kwargs):
        with pytest.raises(ModelError, match=match) as caught:
            look(data, *args, **kwargs)
        assert caught.value.code == code, caught.value
        return caught.value

    return check


# --- models that are fine ---------------------------------------------------------------------------


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


# --- files that are none ----------------------------------------------------------------------------


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


# --- graphs -----------------------------------------------------------------------------------------


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


def _branch(*nodes, output="b"):
    return helper.make_graph(list(nodes), "branch", [], [value(output)])


def test_subgraphs_see_outer_names(look, refused):
    branch = _branch(node("Add", ["x", "w"], ["b"]))
    info = look(model([node("If", ["x"], ["y"], then_branch=branch, else_branch=branch)]))
    assert info.node_count == 3
    branch = _branch(node("Add", ["x", "gone"], ["b"]))
    refused("ONNX_INVALID_GRAPH", model([node("If", ["x"], ["y"], then_branch=branch)]), match="'gone'")


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
    branch = _branch(node("Relu", ["x"], ["t"]), node("Relu", ["t"], ["b"]))
    refused("ONNX_TOO_COMPLEX", model([node("If", ["x"], ["y"], then_branch=branch)]), max_nodes=2)


def test_too_many_inputs(refused):
    inputs = [value(f"x{number}") for number in range(10_001)]
    refused("ONNX_TOO_COMPLEX", model(inputs=[value("x"), *inputs]), match="inputs and outputs")


def _function(name, *called, tensor=None):
    inner = ["a", *(f"t{number}" for number in range(len(called)))]
    nodes = [node(op, [a], [b], domain="f") for op, a, b in zip(called, inner, inner[1:], strict=False)]
    if tensor:
        nodes.append(node("Constant", [], ["c"], value=tensor))
    nodes.append(node("Relu", [inner[-1]], ["r"]))
    return helper.make_function("f", name, ["a"], ["r"], nodes, [helper.make_opsetid("", 17)])


def test_functions(look, refused):
    call = [node("f0", ["x"], ["y"], domain="f")]
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("f", 1)]
    laughs = [_function(f"f{n}", f"f{n + 1}", f"f{n + 1}") for n in range(30)] + [_function("f30")]
    refused("ONNX_FUNCTION_EXPANSION", model(call, functions=laughs, opset_imports=opsets), match="expand")
    loop = [_function("f0", "f1"), _function("f1", "f0")]
    refused("ONNX_FUNCTION_EXPANSION", model(call, functions=loop, opset_imports=opsets), match="itself")
    twice = [_function("f0"), _function("f0")]
    refused("ONNX_INVALID_GRAPH", model(call, functions=twice, opset_imports=opsets))
    fine = [_function("f0", "f1"), _function("f1", tensor=weight("c", location="c.bin"))]
    info = look(model(call, functions=fine, opset_imports=opsets))
    assert info.node_count == 5
    assert info.external_data == ("c.bin",)


# --- external data ----------------------------------------------------------------------------------

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
        [node("If", ["x"], ["y"], then_branch=_branch(node("Constant", [], ["b"], value=t)))]
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
    function = _function("f0")
    function.attribute_proto.add(name="a", type=onnx.AttributeProto.TENSOR, t=tensor)
    return model(functions=[function])


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


# --- manifests --------------------------------------------------------------------------------------


def _saved(folder, *locations):
    folder.mkdir(parents=True, exist_ok=True)
    weights = [weight(f"w{number}", location=name, length="16") for number, name in enumerate(locations)]
    path = folder / "model.onnx"
    path.write_bytes(model(initializers=[weight(), *weights]).SerializeToString())
    return path


def test_manifest_without_external_data(tmp_path):
    path = _saved(tmp_path)
    manifest = manifest_of(path)
    assert manifest.digest == manifest.onnx == Digest.of_bytes(path.read_bytes())
    assert manifest.size_bytes == path.stat().st_size


def test_manifest_with_external_data(tmp_path):
    path = _saved(tmp_path, "z.bin", "data/a.bin", "z.bin")
    (tmp_path / "data").mkdir()
    (tmp_path / "z.bin").write_bytes(b"z" * 3_000_000)
    (tmp_path / "data/a.bin").write_bytes(b"a" * 16)
    steps = []
    manifest = manifest_of(path, steps.append)
    assert [file.location for file in manifest.external_data] == ["data/a.bin", "z.bin"]
    assert sum(steps) == manifest.size_bytes == path.stat().st_size + 3_000_016
    external = {"z.bin": Digest.of_bytes(b"z" * 3_000_000), "data/a.bin": Digest.of_bytes(b"a" * 16)}
    document = {"onnx": Digest.of_bytes(path.read_bytes()), "external_data": external}
    assert manifest.digest == Digest.of_bytes(canonical_json(document))
    assert ModelManifest.model_validate_json(manifest.model_dump_json()) == manifest


def test_manifest_of_a_missing_file(tmp_path):
    path = _saved(tmp_path, "weights.bin")
    with pytest.raises(ExternalDataMissingError, match=r"'weights\.bin'") as caught:
        manifest_of(path)
    assert str(tmp_path) in caught.value.message
    (tmp_path / "weights.bin").mkdir()
    with pytest.raises(ExternalDataMissingError):
        manifest_of(path)


def test_manifest_of_a_short_file(tmp_path):
    path = _saved(tmp_path, "weights.bin")
    (tmp_path / "weights.bin").write_bytes(b"x" * 15)
    with pytest.raises(ModelError) as caught:
        manifest_of(path)
    assert caught.value.code == "EXTERNAL_DATA_RANGE"


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_links_out_of_the_folder(tmp_path, kind):
    (tmp_path / "private").mkdir()
    (tmp_path / "private/w.bin").write_bytes(b"x" * 16)
    path = _saved(tmp_path / "model", "data/w.bin")
    link = path.parent / "data"
    if kind == "folder":
        link.symlink_to("../private")
    else:
        link.mkdir()
        (link / "w.bin").symlink_to("../../private/w.bin")
    with pytest.raises(ExternalDataPathError, match="leaves the folder") as caught:
        manifest_of(path)
    assert "cp -rL" in caught.value.hint


def test_links_within_the_folder(tmp_path):
    path = _saved(tmp_path, "w.bin")
    (tmp_path / "real.bin").write_bytes(b"x" * 16)
    (tmp_path / "w.bin").symlink_to("real.bin")
    assert manifest_of(path).external_data[0].location == "w.bin"


def test_manifests_that_no_folder_can_hold():
    def file(location):
        return ExternalFile(location=location, digest=Digest.of_bytes(b""), size_bytes=0)

    onnx_digest = Digest.of_bytes(b"model")
    for locations in (["a", "a"], ["a", "a/b"], ["a", "a.b", "a/b/c"]):
        with pytest.raises(ValueError, match="'a' is"):
            ModelManifest(onnx=onnx_digest, onnx_size_bytes=1, external_data=tuple(map(file, locations)))
    with pytest.raises(ValueError, match="leaves the folder"):
        file("../a")


# --- damage -----------------------------------------------------------------------------------------

_RICH = model(
    [
        node(
            "If",
            ["x"],
            ["t"],
            then_branch=_branch(node("Constant", [], ["b"], value=weight(location="c.bin"))),
        ),
        node("f0", ["t"], ["y"], domain="f"),
    ],
    inputs=[value("x", ("batch", 4)), value("w", (4,))],
    initializers=[weight(location="w.bin", offset="0", length="16")],
    functions=[_function("f0", "f1"), _function("f1")],
    opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("f", 1)],
).SerializeToString()
_SOURCES = {"rich": _RICH, "light": (LIGHT / "light_zfnet512.onnx").read_bytes()}


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    return tmp_path_factory.mktemp("damage") / "model.onnx"


@settings(max_examples=500, deadline=None)
@given(
    st.sampled_from(sorted(_SOURCES)),
    st.lists(st.tuples(st.integers(0, 10**9), st.integers(0, 7)), min_size=1, max_size=12),
)
def test_flipped_bits(scratch, source, flips):
    data = bytearray(_SOURCES[source])
    for position, bit in flips:
        data[position % len(data)] ^= 1 << bit
    scratch.write_bytes(data)
    try:
        info = inspect_model(scratch, {"w.bin": 16, "c.bin": 16})
    except TrtFarmError as error:
        str(error).encode()
    else:
        ModelInfo.model_validate_json(info.model_dump_json())


def test_every_bit_of_a_small_model(scratch):
    data = bytearray(_RICH)
    for position in range(len(data)):
        for bit in range(8):
            data[position] ^= 1 << bit
            scratch.write_bytes(data)
            with contextlib.suppress(TrtFarmError):
                inspect_model(scratch, {"w.bin": 16, "c.bin": 16})
            data[position] ^= 1 << bit
