"""A model costs its reader time and memory in proportion to its size, and the farm keeps little of it."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.security import hostile_models
from tests.security.hostile_models import KINDS
from trtfarm.errors import ExternalDataError, ModelError, OnnxTooComplexError
from trtfarm.inspection import functions, inspect, survey
from trtfarm.inspection.functions import check_functions
from trtfarm.inspection.inspect import MAX_DESCRIPTION_BYTES, inspect_model

SMALL, LARGE = 20_000, 160_000  # bytes

Read = Callable[[bytes], object]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    path = tmp_path / "model.onnx"

    def inspected(data: bytes) -> object:
        path.write_bytes(data)
        return inspect_model(path)

    return inspected


def _cpu_seconds(read: Read, data: bytes) -> float:
    """The lesser of two, as others use the machine too."""
    took = []
    for _ in range(2):
        start = time.process_time()
        with contextlib.suppress(ModelError):
            read(data)
        took.append(time.process_time() - start)
    return min(took)


@pytest.mark.parametrize("kind", KINDS)
def test_time_grows_with_the_size(kind: str, read: Read) -> None:
    """Eight times the size: a set made anew for every function takes 64 times as long."""
    small, large = (_cpu_seconds(read, KINDS[kind](size)) for size in (SMALL, LARGE))
    assert large < 3 * (LARGE / SMALL) * small + 0.05


def test_expanded_sizes_do_not_grow_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Function n of a chain is 2^n nodes: a number with as many digits as there are functions."""
    sizes = []

    def size(*args: Any) -> int:
        sizes.append(counted(*args))
        return sizes[-1]

    counted = functions._size
    monkeypatch.setattr(functions, "_size", size)
    check_functions(hostile_models.parsed(hostile_models.chained_functions(20_000)), 1000)
    assert max(sizes) == 2 * 1001


@pytest.mark.parametrize(
    "kind", ["attributes", "wide_node", "domains", "metadata", "sorted_chain", "unsorted"]
)
def test_parts_are_limited(kind: str, read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inspect, "MAX_PARTS", 1000)
    with pytest.raises(OnnxTooComplexError, match="1000 parts"):
        read(KINDS[kind](50_000))


@pytest.mark.parametrize("kind", ["functions", "many_graphs", "training"])
def test_bodies_are_limited(kind: str, read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(survey, "MAX_BODIES", 1000)
    with pytest.raises(OnnxTooComplexError, match="1000 functions"):
        read(KINDS[kind](50_000))


@pytest.mark.parametrize("kind", ["attributes", "training", "functions"])
def test_what_is_too_much_is_counted_and_not_visited(
    kind: str, read: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    def visited(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr(inspect, "MAX_PARTS", 1000)
    monkeypatch.setattr(survey, "MAX_BODIES", 1000)
    for name in ("_attributes", "_function"):
        monkeypatch.setattr(survey._Survey, name, visited)
    with pytest.raises(OnnxTooComplexError):
        read(KINDS[kind](50_000))


@pytest.mark.parametrize(
    ("kind", "match"),
    [
        ("long_name", "has 300000 bytes; 1024"),
        ("long_output", "1024 are accepted"),
        ("long_domain", "1024 are accepted"),
        ("high_rank", "axes of an input or output; 64"),
        ("domains", "operator sets; 256"),
        ("many_inputs", "inputs and outputs; 10000"),
        ("inputs_and_initializers", "inputs and outputs; 10000"),
        ("locations", "external files; 10000"),
    ],
)
def test_a_description_is_limited(kind: str, match: str, read: Read) -> None:
    with pytest.raises(OnnxTooComplexError, match=match) as caught:
        read(KINDS[kind](300_000))
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("kind", ["long_location", "deep_location"])
def test_a_location_is_limited(kind: str, read: Read) -> None:
    with pytest.raises(ExternalDataError) as caught:
        read(KINDS[kind](300_000))
    assert len(str(caught.value)) + len(str(caught.value.details)) < 1000


def test_a_description_is_limited_as_a_whole(read: Read) -> None:
    """Many names, each of which would be let pass."""
    field = hostile_models.field
    names = [b"%05d" % number + b"n" * 500 for number in range(5000)]
    inputs = b"".join(field(hostile_models.INPUTS, field(1, name)) for name in names)
    with pytest.raises(OnnxTooComplexError, match=f"{MAX_DESCRIPTION_BYTES} are accepted"):
        read(hostile_models.model(hostile_models.graph(inputs=inputs)))


@pytest.mark.parametrize("kind", ["producer", "long_dimension", "metadata", "value_infos"])
def test_what_nobody_needs_is_not_kept(kind: str, read: Read) -> None:
    data = KINDS[kind](500_000)
    assert len(str(read(data))) < 1000


def test_deep_graphs_need_no_stack(read: Read) -> None:
    assert read(hostile_models.nested(10_000, depth=29))


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:

    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ModelError, match="not a file"):
        inspect_model(tmp_path / "pipe")
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as file, pytest.raises(ModelError, match="not a file"):
        inspect_model(file)
    os.close(writing)
