"""The folders of attempts: whose they are, what is kept of them, what is removed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests import values
from trtfarm.contract.digest import Digest
from trtfarm.contract.leases import Claim
from trtfarm_worker.child.protocol import Built
from trtfarm_worker.finished import Finished
from trtfarm_worker.spool import Entry, Spool, Usage

BUILT = Built(build_seconds=1.5, rss_bytes=1)
OWNER = """
import sys, time
from pathlib import Path
from tests.unit.test_worker_spool import a_claim, finish
from trtfarm_worker.spool import Spool
spool = Spool(Path(sys.argv[1]))
spool.open(a_claim("half")).log_path.touch()
whole = spool.open(a_claim("whole"))
finish(whole, "whole")
print("ready", flush=True)
time.sleep(3600)
"""


def a_claim(job_id: str = "job", fence: int = 1) -> Claim:
    return Claim(job_id=job_id, fence=fence, attempt=1, spec=values.spec(), timeout_seconds=60)


def finish(entry: Entry, job_id: str = "job") -> Finished:
    (entry.path / "plan").write_bytes(b"plan")
    (entry.path / "io.json").write_bytes(b"{}")
    return entry.seal(Finished(claim=a_claim(job_id), done=BUILT, at=time.time()))


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path / "spool")


def names(spool: Spool) -> list[str]:
    return sorted(path.name for path in spool.folder.iterdir())


def test_what_is_sealed_is_read_back_with_the_digests_of_its_files(spool: Spool) -> None:
    entry = spool.open(a_claim())
    assert entry.finished() is None
    sealed = finish(entry)
    assert entry.finished() == sealed
    assert {name: (file.digest, file.size_bytes) for name, file in sealed.files.items()} == {
        "plan": (Digest.of_bytes(b"plan"), 4),
        "io.json": (Digest.of_bytes(b"{}"), 2),
    }
    again = entry.seal(sealed.model_copy(update={"at": 7.0}))
    assert entry.finished() == again
    assert again.at == 7.0


def test_a_result_without_its_plan_is_not_sealed(spool: Spool) -> None:
    entry = spool.open(a_claim())
    with pytest.raises(FileNotFoundError, match="plan"):
        entry.seal(Finished(claim=a_claim(), done=BUILT, at=0))
    assert entry.finished() is None


def test_what_its_owner_has_left_is_adopted_once(spool: Spool) -> None:
    entry = spool.open(a_claim())
    sealed = finish(entry)
    other = Spool(spool.folder)
    assert other.adopt() == []  # its owner lives
    entry.leave()
    (adopted,) = other.adopt()
    assert adopted.finished() == sealed
    assert spool.adopt() == []
    adopted.leave()
    assert spool.adopt(but=[adopted.path.name]) == []


def test_what_was_not_finished_is_litter_once_nobody_owns_it(spool: Spool) -> None:
    entry = spool.open(a_claim())
    (entry.path / "plan").write_bytes(b"half a pl")
    assert spool.adopt() == []
    assert names(spool) == ["job.1"]
    entry.leave()
    assert spool.adopt() == []
    assert names(spool) == []


def test_a_removed_entry_is_gone_for_good(spool: Spool) -> None:
    entry = spool.open(a_claim())
    finish(entry)
    entry.remove()
    assert names(spool) == []
    assert spool.adopt() == []


def test_the_folder_of_a_killed_process(spool: Spool) -> None:
    command = [sys.executable, "-c", OWNER, str(spool.folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": "."}) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == b"ready\n"
        assert spool.adopt() == []
        assert spool.usage().entries == 1
        owner.send_signal(signal.SIGKILL)
        owner.wait(20)
    (whole,) = spool.adopt()
    finished = whole.finished()
    assert finished is not None
    assert finished.claim == a_claim("whole")
    assert names(spool) == ["whole.1"]


def test_usage_counts_what_is_finished(spool: Spool) -> None:
    assert spool.usage() == Usage(0, 0)
    entry = spool.open(a_claim())
    (entry.path / "plan").write_bytes(b"x" * 1000)
    assert spool.usage() == Usage(0, 0)
    finish(entry)
    entries, size_bytes = spool.usage()
    assert entries == 1
    assert size_bytes > len(b"plan") + len(b"{}")


def test_a_manifest_that_cannot_be_read_is_not_taken_for_litter(spool: Spool) -> None:
    entry = spool.open(a_claim())
    (entry.path / "manifest.json").write_text("{")
    entry.leave()
    (found,) = spool.adopt()
    assert found.finished() is None
    assert found.path.exists()


def test_a_place_that_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        Spool(tmp_path / "file" / "spool").open(a_claim())
