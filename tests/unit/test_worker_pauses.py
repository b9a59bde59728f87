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
from trtfarm_worker.pauses import Breaker, Room
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


def test_different_jobs_in_a_row_open_the_breaker() -> None:
    breaker = Breaker(3, 60)
    for job in ("a", "b", "b", "b"):
        breaker.record(job, sound=False)
        assert not breaker.is_open
    breaker.record("c", sound=False)
    assert breaker.is_open


def test_a_job_that_goes_well_starts_the_count_again() -> None:
    breaker = Breaker(2, 60)
    breaker.record("a", sound=False)
    breaker.record("b", sound=True)
    breaker.record("c", sound=False)
    breaker.record("d", sound=None)  # cancelled: tells nothing
    assert not breaker.is_open


def test_it_lets_one_job_through_and_stays_open_longer_each_time() -> None:
    breaker = Breaker(1, 0.2)
    lengths = []
    for job in ("a", "b"):
        breaker.record(job, sound=False)
        began_at = time.monotonic()
        while breaker.is_open:
            time.sleep(0.005)
        lengths.append(time.monotonic() - began_at)
    assert lengths[0] >= 0.19
    assert lengths[1] >= 0.39
    breaker.record("c", sound=True)
    breaker.record("d", sound=False)
    time.sleep(0.25)
    assert not breaker.is_open  # short again


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
