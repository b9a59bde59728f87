"""Folders that one user alone can change, and what is written into those that everybody can."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import values
from tests.security.liar import NOW, WANTED, lying, plan
from trtfarm import Farm
from trtfarm.compose.embedded import Home, controller
from trtfarm.compose.settings import ApiSettings, WorkerFileSettings
from trtfarm.contract.leases import Claim
from trtfarm.errors import ConfigurationError
from trtfarm.private_folder import private_file, private_folder
from trtfarm.sdk.plan_cache import Answer, PlanCache
from trtfarm_db import schema
from trtfarm_db.engine import Database
from trtfarm_db.settings import DatabaseSettings
from trtfarm_worker.agent import Agent
from trtfarm_worker.child import gpu_lock as locks
from trtfarm_worker.child.gpu_lock import gpu_lock
from trtfarm_worker.settings import WorkerSettings
from trtfarm_worker.spool import Spool


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


@pytest.fixture(autouse=True)
def _loose_umask() -> Iterator[None]:
    """The umask of a machine where a user's group is shared: what depends on it shows."""
    before = os.umask(0o002)
    yield
    os.umask(before)


@pytest.fixture
def another(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process runs as somebody else than who made the folders; root's are not at hand in a test."""
    there = os.geteuid()
    real = os.stat_result

    def lowered(found: os.stat_result) -> os.stat_result:
        return real([*found[:4], there + 4711, *found[5:]])

    stat_, lstat = Path.stat, Path.lstat
    monkeypatch.setattr(Path, "stat", lambda path, **more: lowered(stat_(path, **more)))
    monkeypatch.setattr(Path, "lstat", lambda path: lowered(lstat(path)))


def test_it_is_made_for_this_user_alone(tmp_path: Path) -> None:
    folder = private_folder(tmp_path / "new" / "folder", "a.setting")
    assert mode(folder) == 0o700
    assert private_folder(folder, "a.setting") == folder
    folder.chmod(0o755)  # others may look, as the owner has decided
    assert private_folder(folder, "a.setting") == folder


@pytest.mark.parametrize("bits", [0o770, 0o702, 0o777, 0o1777])
def test_others_may_not_write_into_it(tmp_path: Path, bits: int) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    folder.chmod(bits)
    with pytest.raises(ConfigurationError, match="Other users may write") as caught:
        private_folder(folder, "a.setting")
    assert "chmod go-w" in (caught.value.hint or "")


@pytest.mark.usefixtures("another")
def test_it_is_not_somebody_elses(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir(mode=0o700)
    with pytest.raises(ConfigurationError, match="belongs to the user with id"):
        private_folder(tmp_path / "folder", "a.setting")


def test_a_link_to_it_is_not_somebody_elses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk of its own may be linked to; a planted link to a folder of this user's is not followed."""
    (tmp_path / "disk").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to("disk")
    assert private_folder(tmp_path / "link", "a.setting") == tmp_path / "link"
    lstat = Path.lstat

    def planted(path: Path) -> os.stat_result:
        found = lstat(path)
        return os.stat_result([*found[:4], found.st_uid + 4711, *found[5:]])

    monkeypatch.setattr(Path, "lstat", planted)
    with pytest.raises(ConfigurationError, match="belongs to the user with id"):
        private_folder(tmp_path / "link", "a.setting")


def test_nobody_can_put_another_one_in_its_place(tmp_path: Path) -> None:
    above = tmp_path / "above"
    above.mkdir()
    above.chmod(0o777)
    with pytest.raises(ConfigurationError, match="another one in its place"):
        private_folder(above / "folder", "a.setting")
    above.chmod(0o1777)  # as /tmp: only its owner renames it
    private_folder(above / "folder", "a.setting")
    (tmp_path / "link").symlink_to("above/folder")
    above.chmod(0o777)
    with pytest.raises(ConfigurationError, match="another one in its place"):
        private_folder(tmp_path / "link", "a.setting")


@pytest.mark.parametrize("kind", ["file", "dangling link", "fifo"])
def test_it_is_a_folder(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "folder"
    if kind == "file":
        path.write_text("")
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        path.symlink_to("nowhere")
    with pytest.raises(ConfigurationError, match=str(path)):
        private_folder(path, "a.setting")


def test_it_cannot_be_made(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="/proc/none") as caught:
        private_folder(Path("/proc/none"), "a.setting")
    assert "Set a.setting" in (caught.value.hint or "")


def test_a_private_file_is_not_written_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("precious")
    (tmp_path / "farm.sqlite").symlink_to("victim")
    with pytest.raises(OSError, match=r"farm\.sqlite"):
        private_file(tmp_path / "farm.sqlite")


# --- who uses it ---


def test_a_home(tmp_path: Path) -> None:
    """Its folders, and the database with the files that SQLite keeps beside it."""
    home = Home(tmp_path / "home")
    with controller(home):
        database = Database.open(DatabaseSettings.model_validate({"url": home.database_url}), "test")
        schema.upgrade(database)
        with database.transaction():
            pass
        files = list(home.path.glob("farm.sqlite*"))
        assert {path.name for path in files} >= {"farm.sqlite"}
        assert {path.name: mode(path) & 0o077 for path in files} == {path.name: 0 for path in files}
        database.close()
    for folder in (home.path, home.artifacts, home.staging, home.path / "scratch"):
        assert mode(folder) == 0o700, folder


def test_a_database_that_was_readable(tmp_path: Path) -> None:
    home = Home(private_folder(tmp_path / "home", "a.setting"))
    for name in ("farm.sqlite", "farm.sqlite-wal", "farm.sqlite-shm"):
        (home.path / name).touch(0o644)
    with controller(home):
        assert {mode(path) for path in home.path.glob("farm.sqlite*")} == {0o600}


def test_a_home_that_others_write_into(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home").chmod(0o777)
    with (
        pytest.raises(ConfigurationError, match="Other users may write"),
        controller(Home(tmp_path / "home")),
    ):
        pass


def test_a_home_where_others_left_an_address(tmp_path: Path) -> None:
    """The address of a server of theirs, as if it were that of the process which runs the farm."""
    with lying() as liar:
        home = tmp_path / "home"
        home.mkdir()
        (home / "controller.json").write_text(json.dumps({"url": liar.url}))
        home.chmod(0o777)
        with Farm(home=home) as farm, pytest.raises(ConfigurationError, match="Other users may write"):
            farm.fleet()
        assert liar.asked == []


def test_a_workers_scratch(tmp_path: Path) -> None:
    """Before TensorRT is loaded, or anything is read from it."""
    (tmp_path / "scratch").mkdir()
    (tmp_path / "scratch").chmod(0o777)
    settings = WorkerSettings(scratch=tmp_path / "scratch", slots=1)
    agent = Agent(settings=settings, database=None, store=None, bell=None)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="Other users may write"):
        agent.start()


def test_a_spool_that_is_made_on_demand(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "scratch" / "spool")
    spool.open(Claim(job_id="1", fence=1, attempt=1, spec=values.spec(), timeout_seconds=60)).remove()
    assert [mode(folder) for folder in (spool.folder, spool.folder.parent)] == [0o700, 0o700]


def test_the_plans_of_a_machine(tmp_path: Path) -> None:
    """Nothing is taken from a folder where others could have left an answer, or kept in it."""
    folder = tmp_path / "pulled"
    made = plan(WANTED)
    answer = Answer(plan=made, why=(), needs=(), at=NOW)
    PlanCache(folder).remember("farm", made.digest, answer)
    assert mode(folder) == 0o700
    folder.chmod(0o777)
    with pytest.raises(ConfigurationError):
        PlanCache(folder).recall("farm", made.digest)
    with pytest.raises(ConfigurationError):
        PlanCache(folder).has(made.digest)
    with pytest.raises(ConfigurationError):
        PlanCache(folder).remember("farm", made.digest, answer)


def test_no_default_is_in_a_folder_for_everybody() -> None:
    for folder in (ApiSettings().server.staging, WorkerFileSettings().worker.scratch):
        assert folder.is_relative_to("/var/lib/trtfarm")


# --- a GPU's lock, which all users of a host must share ---


@pytest.fixture
def lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(locks, "_FOLDERS", (tmp_path,))
    return tmp_path / "trtfarm-GPU-1.lock"


@pytest.mark.parametrize("kind", ["link", "dangling link", "fifo", "folder"])
def test_what_is_planted_instead_of_a_lock(lock: Path, kind: str) -> None:
    """A link made the worker, as root, create or open a file of the stranger's choice."""
    victim = lock.with_name("victim")
    if kind == "fifo":
        os.mkfifo(lock)
    elif kind == "folder":
        lock.mkdir()
    else:
        lock.symlink_to(victim)
    if kind == "link":
        victim.write_text("precious")
    with pytest.raises(ConfigurationError, match="not a lock"), gpu_lock("GPU-1"):
        pass
    assert victim.exists() == (kind == "link")


def test_a_lock_that_another_users_worker_has_left(lock: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It cannot be opened for writing, nor created where the kernel protects others' files."""
    with gpu_lock("GPU-1"):
        pass
    real = os.open

    def guarded(path: str, flags: int, *more: int) -> int:
        if flags & (os.O_CREAT | os.O_RDWR | os.O_WRONLY):
            raise PermissionError(13, "Permission denied", path)
        return real(path, flags, *more)

    monkeypatch.setattr("os.open", guarded)
    with gpu_lock("GPU-1"), pytest.raises(ConfigurationError, match="belongs to another"), gpu_lock("GPU-1"):
        pass
