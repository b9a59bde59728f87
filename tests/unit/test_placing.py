"""Replacing a file at once, by several processes, some of which are killed."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest

from trtfarm.contract.digest import Digest
from trtfarm.errors import BlobCorruptError
from trtfarm.sdk.placing import place

SIZE = 8 << 20
CONTENTS = [bytes([number]) * SIZE for number in range(3)]
DIGESTS = [Digest.of_bytes(data) for data in CONTENTS]


@pytest.fixture
def sources(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"source-{number}" for number in range(3)]
    for path, data in zip(paths, CONTENTS, strict=True):
        path.write_bytes(data)
    return paths


def place_for_ever(source: Path, digest: Digest, other: Path, its: Digest, destination: Path) -> None:
    while True:
        place(source, digest, destination)
        place(other, its, destination)


def test_in_place_and_again(sources: list[Path], tmp_path: Path) -> None:
    destination = tmp_path / "new folder" / "model.plan"
    assert place(sources[0], DIGESTS[0], destination)
    before = destination.stat()
    assert not place(sources[0], DIGESTS[0], destination)
    assert destination.stat().st_mtime_ns == before.st_mtime_ns
    destination.chmod(0o600)
    assert place(sources[1], DIGESTS[1], destination)
    assert (destination.read_bytes(), destination.stat().st_mode & 0o777) == (CONTENTS[1], 0o600)
    assert [path.name for path in destination.parent.iterdir()] == ["model.plan"]


def test_wrong_bytes_change_nothing(sources: list[Path], tmp_path: Path) -> None:
    destination = tmp_path / "model.plan"
    place(sources[0], DIGESTS[0], destination)
    with pytest.raises(BlobCorruptError):
        place(sources[1], DIGESTS[2], destination)
    assert destination.read_bytes() == CONTENTS[0]
    assert not list(tmp_path.glob(".*"))


def test_readers_see_whole_files_while_writers_are_killed(sources: list[Path], tmp_path: Path) -> None:
    destination = tmp_path / "model.plan"
    place(sources[0], DIGESTS[0], destination)
    context = multiprocessing.get_context("spawn")
    arguments = (sources[1], DIGESTS[1], sources[2], DIGESTS[2], destination)
    writers = []
    seen: set[Digest] = set()
    try:
        for _ in range(2):
            writers += [context.Process(target=place_for_ever, args=arguments) for _ in range(2)]
            for writer in writers[-2:]:
                writer.start()
            until, given_up = time.monotonic() + 1.0, time.monotonic() + 60
            while time.monotonic() < (until if set(DIGESTS[1:]) <= seen else given_up):
                seen.add(Digest.of_bytes(destination.read_bytes()))
            assert writers[-1].pid
            os.kill(writers[-1].pid, signal.SIGKILL)
            writers[-1].join()
    finally:
        for writer in writers:
            writer.kill()
            writer.join()
    assert seen <= set(DIGESTS)
    assert set(DIGESTS[1:]) <= seen, "nobody wrote"
    assert place(sources[0], DIGESTS[0], destination), "what a killed one left is in nobody's way"
    assert destination.read_bytes() == CONTENTS[0]
    assert not list(tmp_path.glob(".*"))
