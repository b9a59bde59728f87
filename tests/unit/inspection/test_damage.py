"""Damaged files are refused, whatever the damage."""

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from tests.unit.inspection.graphs import LIGHT, branch, function, model, node, value, weight
from trtfarm.contract.models import ModelInfo
from trtfarm.errors import TrtFarmError
from trtfarm.inspection.inspect import inspect_model

_RICH = model(
    [
        node(
            "If",
            ["x"],
            ["t"],
            then_branch=branch(node("Constant", [], ["b"], value=weight(location="c.bin"))),
        ),
        node("f0", ["t"], ["y"], domain="f"),
    ],
    inputs=[value("x", ("batch", 4)), value("w", (4,))],
    initializers=[weight(location="w.bin", offset="0", length="16")],
    functions=[function("f0", "f1"), function("f1")],
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
