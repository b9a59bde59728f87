"""Options, formats, profiles and bad models with the real TensorRT-RTX, in the worker's own child process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.acceptance import models
from tests.integration.rtx_child import Child
from tests.unit.test_support import WHERE

ACCEPTED = [line for line, where in WHERE.items() if "rtx" in where.split()]
REFUSED = [line for line in WHERE if line not in ACCEPTED]
# The first bytes of a plan.
MAGIC = b"vtrt"


@pytest.fixture(scope="module")
def child(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Child]:
    with Child(tmp_path_factory.mktemp("child")) as child:
        yield child


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def small(folder: Path) -> Path:
    return models.small(folder / "small.onnx", 0)


@pytest.fixture(scope="module")
def half(folder: Path) -> Path:
    """Two inputs of float16, each through a convolution."""
    weights = np.random.default_rng(0).standard_normal((8, 8, 3, 3)).astype(np.float16)
    shape, kind = [2, 8, 16, 16], TensorProto.FLOAT16
    graph = helper.make_graph(
        [helper.make_node("Conv", [x, "w"], [y], name=y, pads=[1] * 4) for x, y in ("ab", "cd")],
        "half",
        [helper.make_tensor_value_info(name, kind, shape) for name in "ac"],
        [helper.make_tensor_value_info(name, kind, shape) for name in "bd"],
        [numpy_helper.from_array(weights, "w")],
    )
    return save(folder / "half.onnx", graph)


def save(path: Path, graph: onnx.GraphProto) -> Path:
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    path.write_bytes(model.SerializeToString())
    return path


def check(plan: bytes, child: Child) -> None:
    assert plan[:4] == MAGIC
    assert tuple(plan[24:28]) == child.runtime.version_numbers
    assert int.from_bytes(plan[16:24], "little") == len(plan)


@pytest.mark.parametrize("line", ACCEPTED)
def test_what_is_accepted_gives_a_plan(child, small, line):
    outcome = child.build(small, line.split())
    assert outcome.error is None
    check(outcome.plan, child)
    assert [tensor["name"] for tensor in outcome.io["inputs"]] == ["x"]


@pytest.mark.parametrize("line", REFUSED)
def test_what_is_refused_is_refused_by_name(child, small, line):
    error = child.build(small, line.split()).error
    assert error is not None
    assert error.code == "OPTION_UNSUPPORTED"
    assert error.details["option"].partition("=")[0].split()[0] in error.message
    assert error.message.startswith("--")
    assert str(child.runtime) in error.message
    assert error.hint


def test_options_reach_tensorrt(child, small):
    """RTX builds the same bytes each time: what differs is the option's doing."""
    plain = child.build(small).plan
    assert child.build(small, ["--stronglyTyped", "--directIO"]).plan == plain
    lines = (
        "--profilingVerbosity=detailed",
        "--profilingVerbosity=none",
        "--allowWeightStreaming",
        "--noTF32",
        "--memPoolSize=tacticSharedMem:48K",
    )
    plans = [child.build(small, [line]).plan for line in lines]
    assert len({plain, *plans}) == 1 + len(lines)
    assert child.build(small).plan == plain


def test_too_little_workspace(child, half):
    error = child.build(half, ["--memPoolSize=workspace:1B"]).error
    assert error is not None
    assert error.code == "NO_TACTIC"
    assert "--memPoolSize" in (error.hint or "")


@pytest.mark.parametrize("name", ["chw", "chw4", "chw32", "hwc", "hwc8", "hwc16", "chw+hwc8"])
def test_formats(child, half, name):
    outcome = child.build(half, [f"--inputIOFormats={name}", f"--outputIOFormats={name}"])
    assert outcome.error is None
    check(outcome.plan, child)


def test_formats_are_in_the_models_order(child, half):
    """One for all, or one for each."""
    both, first, second, all_of_them = (
        child.build(half, [f"--inputIOFormats={text}"]).plan
        for text in ("hwc8,hwc8", "hwc8,chw", "chw,hwc8", "hwc8")
    )
    assert len({both, first, second}) == 3
    assert both == all_of_them
    error = child.build(half, ["--outputIOFormats=chw,chw,chw"]).error
    assert error is not None
    assert error.code == "VALIDATION_ERROR"
    assert error.message == "--outputIOFormats has 3 formats for 2 tensors."
    assert "b, d" in (error.hint or "")


@pytest.mark.parametrize("name", ["dhwc", "dla_linear", "dla_hwc4"])
def test_formats_that_the_type_does_not_have(child, half, name):
    error = child.build(half, [f"--inputIOFormats={name}"]).error
    assert error is not None
    assert error.code == "FORMAT_UNSUPPORTED"
    assert "--inputIOFormats" in (error.hint or "")
    assert "_src/" not in error.message


PROFILES = (
    *("--profile=0", "--minShapes=x:1x3x8x8", "--optShapes=x:2x3x16x16", "--maxShapes=x:4x3x32x32"),
    *("--profile=1", "--minShapes=x:4x3x8x8", "--optShapes=x:8x3x16x16", "--maxShapes=x:16x3x32x32"),
)


def test_two_profiles(child, folder):
    model = models.dynamic(folder / "dynamic.onnx")
    one, two = child.build(model, PROFILES[:4]), child.build(model, PROFILES)
    check(two.plan, child)
    assert len(two.plan) > 1.5 * len(one.plan)
    assert [profile["x"]["opt"] for profile in two.io["profiles"]] == [[2, 3, 16, 16], [8, 3, 16, 16]]
    assert two.io["inputs"] == [{"name": "x", "dtype": "float32", "shape": [-1, 3, -1, -1]}]


@pytest.mark.parametrize(
    "options", [(), ("--shapes=y:1x3x8x8",), ("--shapes=x:1x4x8x8",), ("--shapes=x:1x3x8",)]
)
def test_profiles_that_do_not_fit(child, folder, options):
    """The API refuses them first; TensorRT would too."""
    assert child.build(models.dynamic(folder / "dynamic.onnx"), options).code == "PROFILE_INVALID"


def test_an_operator_that_nobody_has(child, folder):
    error = child.build(models.with_unknown_operator(folder / "unknown.onnx")).error
    assert error is not None
    assert error.code == "ONNX_UNSUPPORTED_OP"
    assert error.message == "TensorRT has no operator FancyAttention (node 'the_odd_one')."
    assert error.details["nodes"][0] | {"message": ""} == {
        "node": "the_odd_one", "operator": "FancyAttention", "index": 1, "message": "",
    }  # fmt: skip


def test_a_plugin_that_is_not_loaded(child, folder):
    """TensorRT has it, TensorRT-RTX has not."""
    boxes = [("b", TensorProto.FLOAT, [1, 10, 4]), ("s", TensorProto.FLOAT, [1, 10, 3])]
    found = [
        ("count", TensorProto.INT32, [1, 1]),
        ("boxes", TensorProto.FLOAT, [1, 5, 4]),
        ("scores", TensorProto.FLOAT, [1, 5]),
        ("classes", TensorProto.INT32, [1, 5]),
    ]
    node = helper.make_node(
        "EfficientNMS_TRT", ["b", "s"], [name for name, *_ in found], name="nms", plugin_version="1",
        score_threshold=0.1, iou_threshold=0.2, max_output_boxes=5, background_class=-1, score_activation=0,
        box_coding=0,
    )  # fmt: skip
    infos = [[helper.make_tensor_value_info(*each) for each in group] for group in (boxes, found)]
    error = child.build(save(folder / "nms.onnx", helper.make_graph([node], "nms", *infos))).error
    assert error is not None
    assert error.code == "ONNX_UNSUPPORTED_OP"
    assert "EfficientNMS_TRT (node 'nms')" in error.message
    assert "plugin" in (error.hint or "")


def test_a_truncated_model(child, small, folder):
    path = folder / "truncated.onnx"
    path.write_bytes(small.read_bytes()[:-100])
    error = child.build(path).error
    assert error is not None
    assert error.code == "ONNX_PARSE_ERROR"


def test_one_child_for_all_of_this(child, small):
    """No refusal above has ended it, nor is anything left of one in the next build."""
    assert child.is_the_first
    outcome = child.build(small)
    assert outcome.error is None
    assert " E " not in outcome.log
