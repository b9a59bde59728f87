"""Combining timing caches, with a stand-in that answers as TensorRT was seen to."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from trtfarm_worker.tensorrt.timing_cache import combine


@dataclass
class Cache:
    """Its bytes are its entries."""

    entries: bytes
    takes: bool
    says: bool

    def combine(self, other: Cache, ignore_mismatch: bool) -> bool:
        assert not ignore_mismatch
        if self.takes:
            self.entries += bytes(each for each in other.entries if each not in self.entries)
        return self.says

    def serialize(self) -> bytes:
        return self.entries


@dataclass
class Builder:
    """Also its own config."""

    takes: bool
    says: bool

    def create_builder_config(self) -> Builder:
        return self

    def create_timing_cache(self, data: bytes) -> Cache:
        return Cache(data, self.takes, self.says)


@pytest.mark.parametrize(
    ("takes", "says", "combined"),
    [
        (True, True, b"abc"),
        (True, False, b"abc"),  # TensorRT 8.6 when only the code generator's part does not combine
        (False, False, None),
    ],
)
def test_what_has_grown_is_combined(tmp_path: Path, takes: bool, says: bool, combined: bytes | None) -> None:
    base, addition, destination = tmp_path / "base", tmp_path / "addition", tmp_path / "combined"
    base.write_bytes(b"ab")
    addition.write_bytes(b"bc")
    assert combine(Builder(takes, says), base, addition, destination) == (combined is not None)
    assert (destination.read_bytes() if destination.exists() else None) == combined


def test_nothing_new_that_tensorrt_agrees_to_is_combined_too(tmp_path: Path) -> None:
    base, destination = tmp_path / "base", tmp_path / "combined"
    base.write_bytes(b"ab")
    assert combine(Builder(True, True), base, base, destination)
    assert destination.read_bytes() == b"ab"
