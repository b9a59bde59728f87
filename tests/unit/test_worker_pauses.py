"""When a slot claims nothing."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from typing import cast

import pytest

from trtfarm.contract.worker import Pause
from trtfarm_worker.model_cache import ModelCache
from trtfarm_worker.outbox import Outbox
from trtfarm_worker.pauses import Bearing, Breaker, Room
from trtfarm_worker.settings import WorkerSettings
from trtfarm_worker.spool import Usage


class NoModels:
    def make_room(self, wanted_bytes: int) -> None:
        assert wanted_bytes > 0


class FullOutbox:
    usage = Usage(2, 1000)


def a_room(scratch: Path, **settings: int) -> Room:
    chosen = WorkerSettings.model_validate({"scratch": scratch, **settings})
    return Room(chosen, cast("ModelCache", NoModels()), cast("Outbox", FullOutbox()))


def test_different_builds_in_a_row_raise_a_doubt() -> None:
    breaker = Breaker(3, 60)
    for build in ("a", "b", "b", "b"):
        breaker.record(build, Bearing.CRASHED)
        assert not breaker.in_doubt
    breaker.record("c", Bearing.CRASHED)
    assert breaker.in_doubt
    assert not breaker.is_open


def test_a_build_that_goes_well_starts_the_count_again() -> None:
    breaker = Breaker(2, 60)
    breaker.record("a", Bearing.CRASHED)
    breaker.record("b", Bearing.SOUND)
    breaker.record("c", Bearing.CRASHED)
    breaker.record("d", None)  # cancelled: tells nothing
    assert not breaker.in_doubt


def test_a_child_that_says_it_is_broken_is_doubted_at_once() -> None:
    breaker = Breaker(3, 60)
    breaker.record("a", Bearing.BROKEN)
    assert breaker.in_doubt


def test_a_doubt_that_is_dispelled_pauses_nothing() -> None:
    breaker = Breaker(1, 60)
    for build in "abcdef":
        breaker.record(build, Bearing.CRASHED)
        assert breaker.in_doubt
        breaker.proved(works=True)
        assert not breaker.in_doubt
        assert not breaker.is_open


def test_it_is_open_longer_each_time_the_workers_own_build_fails() -> None:
    breaker = Breaker(1, 0.2)
    breaker.record("a", Bearing.CRASHED)
    lengths = []
    for _ in range(2):
        breaker.proved(works=False)
        assert breaker.in_doubt
        began_at = time.monotonic()
        while breaker.is_open:
            time.sleep(0.005)
        lengths.append(time.monotonic() - began_at)
    assert lengths[0] >= 0.19
    assert lengths[1] >= 0.39
    breaker.proved(works=True)
    breaker.record("b", Bearing.CRASHED)
    breaker.proved(works=False)
    assert breaker._until - time.monotonic() <= 0.2  # short again


def test_a_disk_that_fills_up_and_has_room_again(tmp_path: Path) -> None:
    room = a_room(tmp_path, scratch_reserve_bytes=shutil.disk_usage(tmp_path).free - 2**30)
    assert room.pause() is None
    with (tmp_path / "large").open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, 2**31)
    assert room.pause() is Pause.DISK
    (tmp_path / "large").unlink()
    assert room.pause() is None


@pytest.mark.parametrize(("limit", "pause"), [(999, Pause.SPOOL), (1000, None)])
def test_too_much_finished_work(tmp_path: Path, limit: int, pause: Pause | None) -> None:
    assert a_room(tmp_path, scratch_reserve_bytes=0, spool_bytes=limit).pause() is pause


def test_a_scratch_folder_that_is_gone_pauses_nothing(tmp_path: Path) -> None:
    assert a_room(tmp_path / "gone").pause() is None
