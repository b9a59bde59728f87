"""The folder that a worker's attempts write to."""

from __future__ import annotations

from pathlib import Path

import pytest

from trtfarm_worker.scratch import attempts_folder


def names(scratch: Path) -> set[str]:
    return {path.name for path in (scratch / "attempts").iterdir()}


def test_a_folder_of_ones_own_that_goes_with_what_is_in_it(tmp_path: Path) -> None:
    with attempts_folder(tmp_path, "one") as folder:
        assert folder == tmp_path / "attempts/one"
        (folder / "job.1").mkdir()
        (folder / "job.1/plan").write_bytes(b"plan")
    assert names(tmp_path) == set()


def test_workers_that_live_leave_each_other_alone(tmp_path: Path) -> None:
    with attempts_folder(tmp_path, "one") as one:
        (one / "job.1").mkdir()
        with attempts_folder(tmp_path, "two"):
            assert names(tmp_path) == {"one", "two"}
        assert (one / "job.1").is_dir()
    assert names(tmp_path) == set()


def test_what_a_killed_worker_left_is_removed(tmp_path: Path) -> None:
    (tmp_path / "attempts/dead/job.1").mkdir(parents=True)
    (tmp_path / "attempts/dead/job.1/plan").write_bytes(b"half a plan")
    (tmp_path / "attempts/stray file").touch()
    with attempts_folder(tmp_path, "one"):
        assert names(tmp_path) == {"one", "stray file"}


def test_a_place_that_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"), attempts_folder(tmp_path / "file", "one"):
        pass
