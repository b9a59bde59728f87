"""Files that a client writes: regular ones, through links, and with nothing planted on the way."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.acceptance.processes import clean_environment
from tests.security.liar import MODEL, OTHER, WANTED, Liar, Reply, digest, job, lying, plan, said, submission
from trtfarm import files
from trtfarm.cli.main import app
from trtfarm.contract.digest import Digest
from trtfarm.contract.timing_cache import TimingCacheView
from trtfarm.errors import LocalFileError
from trtfarm.files import owned, target_of, write
from trtfarm.sdk.client import FarmClient
from trtfarm.sdk.placing import place

PLAN = plan(WANTED)
PULL = ("plan", "pull", PLAN.digest, "--gpu", "l4", "--runtime", PLAN.target.runtime)
OUT = "model.plan"


@pytest.fixture
def liar() -> Iterator[Liar]:
    with lying() as liar:
        liar.holds(PLAN, WANTED)
        liar.routes[f"GET /v1/models/{MODEL}"] = said(
            {"digest": MODEL, "size_bytes": 1, "opsets": {}, "ir_version": 8, "node_count": 1, "inputs": [],
             "outputs": [], "external_data": [], "created_at": PLAN.created_at.isoformat()}
        )  # fmt: skip
        liar.routes["POST /v1/jobs"] = said(submission(job(PLAN)))
        cache = TimingCacheView(
            key="ab" * 32, revision=1, digest=digest(WANTED), size_bytes=len(WANTED), gpu="l4",
            runtime=PLAN.target.runtime, entries=None, job_id=None, worker_id=None,
            created_at=PLAN.created_at,
        )  # fmt: skip
        liar.routes[f"GET /v1/timing-caches/{cache.key}"] = said(
            {"timing_caches": [cache.model_dump(mode="json")]}
        )
        liar.routes[f"GET /v1/timing-caches/{cache.key}/content"] = Reply(WANTED)
        yield liar


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A folder for what is written, and nothing else."""
    folder = tmp_path / "out"
    folder.mkdir()
    return folder


def odd_socket(path: Path) -> None:
    os.mknod(path, stat.S_IFSOCK | 0o666)


def device(path: Path) -> None:
    """As /dev/null is; who may not make one gets a link to that, which he could not replace either."""
    try:
        os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 3))
    except PermissionError:
        path.symlink_to("/dev/null")


ODD: dict[str, Callable[[Path], None]] = {
    "a device": device,
    "a FIFO": os.mkfifo,
    "a socket": odd_socket,
    "a link to a FIFO": lambda path: (os.mkfifo(path.with_name("fifo")), path.symlink_to("fifo"))[1],
    "a link in a circle": lambda path: path.symlink_to(path),
    "a folder": lambda path: (path.mkdir(), (path / "x").write_text(""), None)[2],
}
COMMANDS: dict[str, tuple[str | Digest, ...]] = {
    "plan pull": PULL,
    "build": ("build", MODEL, "--gpu", "cc-8.9"),
    "build --saveEngine": ("build", MODEL, "--gpu", "cc-8.9", "--saveEngine"),
    "cache export": ("cache", "export", "ab" * 32),
    "benchmark": ("benchmark", PLAN.digest, "--exportTimes"),
}


def run(liar: Liar, folder: Path, name: str, output: Path) -> tuple[int, str]:
    env = clean_environment() | {"TRTFARM_HOME": str(folder / "home"), "TRTFARM_URL": liar.url}
    command = [*map(str, COMMANDS[name])]
    if command[-1].startswith("--") and command[-1] != "--runtime":
        command[-1] += f"={output}"
    else:
        command += ["-o", str(output)]
    done = CliRunner().invoke(app, command, env=env)
    assert isinstance(done.exception, SystemExit | None), done.exception
    return done.exit_code, done.stderr


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("odd", [each for each in ODD if each != "a folder"])
def test_what_is_no_file_is_refused_before_anything_is_fetched(
    liar: Liar, tmp_path: Path, out: Path, name: str, odd: str
) -> None:
    """A FIFO without a reader would hang, and a device would be replaced, or written to."""
    path = out / OUT
    ODD[odd](path)
    before = path.lstat()
    code, told = run(liar, tmp_path, name, path)
    assert (code, "LOCAL_FILE" in told, str(path) in told.replace("\n", "")) == (2, True, True), told
    after = path.lstat()
    assert (after.st_ino, after.st_mode, after.st_rdev) == (before.st_ino, before.st_mode, before.st_rdev)
    assert liar.asked == []


@pytest.mark.parametrize("odd", [each for each in ODD if each != "a folder"])
def test_a_folder_for_several_plans_is_one(liar: Liar, tmp_path: Path, out: Path, odd: str) -> None:
    path = out / OUT
    ODD[odd](path)
    command = ["build", MODEL, "--gpu", "cc-8.9", "--gpu", "cc-7.5", "-o", str(path)]
    env = clean_environment() | {"TRTFARM_HOME": str(tmp_path / "home"), "TRTFARM_URL": liar.url}
    done = CliRunner().invoke(app, command, env=env)
    assert (done.exit_code, "LOCAL_FILE" in done.stderr, liar.asked) == (2, True, []), done.stderr


@pytest.mark.parametrize("odd", ODD)
def test_an_odd_entry_of_a_folder(liar: Liar, tmp_path: Path, out: Path, odd: str) -> None:
    """The file's name is made from the answer; its bytes are not asked for."""
    path = out / f"{MODEL.short}.cc-8.9.{PLAN.target.runtime}.plan"
    ODD[odd](path)
    code, told = run(liar, tmp_path, "plan pull", out)
    assert (code, "LOCAL_FILE" in told) == (2, True), told
    assert f"GET /v1/plans/{PLAN.digest}/content" not in liar.asked
    built = out / f"{MODEL.short}.cc-8.9.plan"
    ODD[odd](built) if odd != "a link to a FIFO" else built.symlink_to("fifo")
    code, told = run(liar, tmp_path, "build", out)
    assert (code, "LOCAL_FILE" in told) == (2, True), told


@pytest.mark.parametrize("odd", ODD)
def test_the_sdk(liar: Liar, out: Path, odd: str) -> None:
    ODD[odd](out / OUT)
    with FarmClient(liar.url) as sdk:
        with pytest.raises(LocalFileError):
            sdk.pull(PLAN, out / OUT)
        with pytest.raises(LocalFileError):
            sdk.export_triton({"a": [PLAN]}, out / OUT)
        with pytest.raises(LocalFileError):
            sdk.campaigns.export_triton("nightly", out / OUT)
    assert liar.asked == []


@pytest.mark.parametrize("name", ["plan pull", "build", "cache export"])
@pytest.mark.parametrize("there", [True, False])
def test_a_link_is_written_through(liar: Liar, tmp_path: Path, out: Path, name: str, there: bool) -> None:
    """Also one that leads nowhere yet."""
    target = tmp_path / "elsewhere" / "current.plan"
    target.parent.mkdir()
    if there:
        target.write_bytes(b"the old one")
        target.chmod(0o604)
    second = tmp_path / "second"
    second.symlink_to("elsewhere/current.plan")
    (out / OUT).symlink_to("../second")
    code, told = run(liar, tmp_path, name, out / OUT)
    assert (code, target.read_bytes()) == (0, WANTED), told
    assert (out / OUT).readlink() == Path("../second")
    assert not target.is_symlink()
    assert stat.S_IMODE(target.stat().st_mode) == (0o604 if there else 0o666 & ~files._umask())
    assert [path.name for path in target.parent.iterdir()] == ["current.plan"]
    assert [path.name for path in out.iterdir()] == [OUT]


def test_an_export_goes_where_a_link_leads(liar: Liar, tmp_path: Path) -> None:
    io = b'{"inputs": [], "outputs": [], "profiles": []}'
    made = plan(WANTED, io=digest(io))
    liar.holds(made, WANTED)
    liar.routes[f"GET /v1/artifacts/{digest(io)}"] = Reply(io)
    (tmp_path / "link").symlink_to("repository")
    with FarmClient(liar.url) as sdk:
        (model,) = sdk.export_triton({"a": [made]}, tmp_path / "link", backend="mine")
    assert (tmp_path / "repository" / model.file("8.9")).read_bytes() == WANTED
    assert (tmp_path / "link").is_symlink()


# --- what others have put there ---


def planted_link(path: Path, victim: Path) -> None:
    path.symlink_to(victim)


def planted_file(path: Path, victim: Path) -> None:
    """A file that somebody reads, and goes on writing to."""
    path.write_bytes(b"planted")
    path.chmod(0o666)


def planted_name(path: Path, victim: Path) -> None:
    path.hardlink_to(victim)


def planted_fifo(path: Path, victim: Path) -> None:
    os.mkfifo(path, 0o666)


@pytest.mark.parametrize("plant", [planted_link, planted_file, planted_name, planted_fifo])
def test_a_planted_temporary_file_is_left_alone(
    liar: Liar, tmp_path: Path, out: Path, plant: Callable[[Path, Path], None]
) -> None:
    """A link, as the name of the partial file, made a victim's file a plan."""
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    victim.chmod(0o600)
    source = tmp_path / "source"
    source.write_bytes(OTHER)
    names = [f".{OUT}.{PLAN.digest.short}.part", f".{OUT}.new"]
    for name in names:
        plant(out / name, victim)
    before = {name: (out / name).lstat() for name in names}
    with FarmClient(liar.url) as sdk:
        assert sdk.pull(PLAN, out / OUT).read_bytes() == WANTED
    assert place(source, digest(OTHER), out / OUT)
    assert (out / OUT).read_bytes() == OTHER
    assert victim.read_bytes() == b"precious"
    assert sorted(path.name for path in out.iterdir()) == sorted([*names, OUT])
    for name, was in before.items():
        now = (out / name).lstat()
        assert (now.st_ino, now.st_size, now.st_mode) == (was.st_ino, was.st_size, was.st_mode)


def test_a_partial_file_of_another_user(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = out / ".model.plan.part"
    with owned(mine) as (path, _):
        assert path == mine
    monkeypatch.setattr("os.geteuid", lambda: os.getuid() + 1)
    with owned(mine) as (path, _):
        assert path.parent == out
        assert path != mine


def test_what_is_under_way_is_for_this_user_alone(out: Path) -> None:
    with owned(out / ".x.part") as (path, file):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        file.write(b"x")
        files.publish(path, file, out / "x")
    assert stat.S_IMODE((out / "x").stat().st_mode) == 0o666 & ~files._umask()
    write(out / "y", b"y")
    assert stat.S_IMODE((out / "y").stat().st_mode) == 0o666 & ~files._umask()


def test_what_cannot_be_written_leaves_nothing(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    (out / "x").write_bytes(b"old")
    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        write(out / "x", b"new")
    assert [(path.name, path.read_bytes()) for path in out.iterdir()] == [("x", b"old")]


def test_a_link_in_a_folder_for_everybody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel refuses to follow another user's (fs.protected_symlinks); a rename does not ask it."""
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    (shared / "plan").symlink_to(tmp_path / "victim")
    assert target_of(shared / "plan") == tmp_path / "victim"
    real = Path.lstat

    def of_another(path: Path) -> os.stat_result:
        found = real(path)
        is_link = stat.S_ISLNK(found.st_mode)
        return os.stat_result([*found[:4], found.st_uid + 1, *found[5:]]) if is_link else found

    monkeypatch.setattr(Path, "lstat", of_another)
    with pytest.raises(LocalFileError, match="another user"):
        target_of(shared / "plan")


def test_two_writers_of_one_file(out: Path) -> None:
    """The second has the same name after the first has published; without waiting, one of its own."""
    first = threading.Event()
    done = threading.Event()

    def write_first() -> None:
        with owned(out / ".x.new") as (path, file):
            first.set()
            done.wait(60)
            file.write(b"first")
            files.publish(path, file, out / "x")

    writer = threading.Thread(target=write_first)
    writer.start()
    assert first.wait(60)
    with owned(out / ".x.new", wait=False) as (path, _):
        assert path.name != ".x.new"
        path.unlink()
    done.set()
    with owned(out / ".x.new") as (path, file):
        file.write(b"second")
        files.publish(path, file, out / "x")
    writer.join()
    assert (out / "x").read_bytes() == b"second"
    assert [path.name for path in out.iterdir()] == ["x"]


def test_a_name_that_cannot_be_one() -> None:
    with pytest.raises(LocalFileError, match="NUL"):
        target_of("a\0b")


def test_a_link_that_appears_at_the_last_moment(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the look and the opening."""
    (out / "victim").write_bytes(b"precious")
    (out / "victim").chmod(0o644)
    (out / ".x.part").symlink_to("victim")
    real, looks = Path.lstat, []

    def late(path: Path) -> os.stat_result:
        looks.append(path)
        if looks.count(path) == 1 and path.name == ".x.part":
            raise FileNotFoundError(path)
        return real(path)

    monkeypatch.setattr(Path, "lstat", late)
    with owned(out / ".x.part") as (path, file):
        file.write(b"x")
        assert path.name != ".x.part"
    assert (out / "victim").read_bytes() == b"precious"
    assert stat.S_IMODE((out / "victim").stat().st_mode) == 0o644
