"""The converter reads strangers' models: what it leaves behind is checked, and it reaches nothing else."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from tests import values
from tests.acceptance import models
from tests.acceptance.processes import wait_until
from tests.integration.farm import Farm
from tests.integration.test_worker_attempt import Shop, code_of
from trtfarm import sandbox
from trtfarm.contract.digest import Digest
from trtfarm.contract.jobs import JobState, Outcome
from trtfarm.contract.leases import Claim
from trtfarm.contract.models import ModelManifest
from trtfarm.contract.spec import BuildSpec
from trtfarm.contract.trtexec import parse_build_options
from trtfarm.sandbox import Mode, Part
from trtfarm_worker.conversion import convert
from trtfarm_worker.conversion.convert import ConversionError
from trtfarm_worker.conversion.typed_model import TypedModels
from trtfarm_worker.model_cache import CachedModel
from trtfarm_worker.settings import WorkerSettings
from trtfarm_worker.work import StoppedError

SECONDS = 60


def spec(model: Digest = values.MODEL) -> BuildSpec:
    return BuildSpec(model=model, target=values.TARGET, config=parse_build_options(["--fp16"]).config)


class Bench:
    """One attempt's folder, and the watch on it."""

    def __init__(self, folder: Path, behaviour: str) -> None:
        self.attempt = folder / "spool" / "job.1"
        self.cached = CachedModel(folder / "m/model/m:model.onnx", folder / "m/typed", 1000)
        self.log = self.attempt / "build.log"
        for each in (self.attempt, self.cached.onnx.parent):
            each.mkdir(parents=True)
        self.cached.onnx.write_text(behaviour)
        self.stages: list[str] = []
        self.stopped: Outcome | None = None

    def stage(self, name: str) -> None:
        self.stages.append(name)

    def check(self) -> None:
        if self.stopped is not None:
            raise StoppedError(self.stopped)

    def run(self, mode: Mode = Mode.AUTO, **settings: float) -> bytes:
        """The typed model's bytes."""
        chosen = WorkerSettings.model_validate({"sandbox": mode, **settings})
        with TypedModels(chosen, self.attempt, self.log).path(spec(), self.cached, self) as path:
            return path.read_bytes()

    def kept(self) -> list[str]:
        """What TensorRT might be given later."""
        return [str(each.relative_to(self.cached.typed)) for each in self.cached.typed.rglob("*")]

    def litter(self) -> set[str]:
        return {each.name for each in self.attempt.iterdir()} - {self.log.name}


@pytest.fixture
def taken_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convert, "MODULE", "tests.security.bad_converter")


@pytest.mark.usefixtures("taken_over")
@pytest.mark.parametrize(
    ("behaviour", "told"),
    [
        ("nothing", "has not written typed.onnx"),
        ("silent", "has not written typed.txt"),
        ("garbage", "what is no model"),
        ("link", "something else than a file"),
        ("account_link", "something else than a file"),
        ("hard_link", "under another name too"),
        ("pipe", "something else than a file"),
        ("unix_socket", "something else than a file"),
        ("folder", "something else than a file"),
        ("more", "has left 'sitecustomize.py'"),
        ("many", "has left 'x0', 'x1', "),
        ("large", "of at most 67110864"),
        ("long_account", "has written 100000 bytes into typed.txt"),
        ("outside ../model/w", "what is no model"),
        ("outside /etc/passwd", "what is no model"),
        ("outside typed.txt", "what is no model"),
        ("outside missing", "what is no model"),
        ("unused", "which the model does not use"),
        ("die SIGSEGV", "ended with SIGSEGV"),
        ("claim", "x"),
    ],
)
def test_what_a_taken_over_converter_leaves_is_refused(tmp_path: Path, behaviour: str, told: str) -> None:
    """Even where no sandbox holds it back."""
    bench = Bench(tmp_path, behaviour)
    with pytest.raises(ConversionError) as caught:
        bench.run(Mode.OFF)
    assert told in caught.value.message
    assert bench.kept() == []
    assert bench.litter() == set()


@pytest.mark.usefixtures("taken_over")
def test_what_is_kept_is_plain_files_that_nobody_writes(tmp_path: Path) -> None:
    bench = Bench(tmp_path, "setuid")
    typed = bench.run(Mode.OFF)
    assert typed
    (folder,) = bench.cached.typed.iterdir()
    for name in ("typed.onnx", "typed.txt"):
        assert stat.filemode((folder / name).stat().st_mode) == "-r--r--r--"
    assert bench.stages == ["converting to fp16"]
    bench.cached.onnx.write_text("garbage")
    assert bench.run() == typed  # converted once
    assert bench.log.read_text() == "fp16: done\n" * 2


@pytest.mark.usefixtures("taken_over")
def test_it_reaches_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Part.FILES in sandbox.offered()
    monkeypatch.setenv("TRTFARM_DATABASE_URL", "postgresql://farm:secret@db/farm")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    other = tmp_path / "another/model/m:model.onnx"
    other.parent.mkdir(parents=True)
    other.write_bytes(b"another model")
    bench = Bench(tmp_path, f"escape {other}")
    assert bench.run()
    assert bench.log.read_text() == "tried all\nfp16: done\n"
    assert bench.cached.onnx.read_text().startswith("escape")


@pytest.mark.usefixtures("taken_over")
@pytest.mark.parametrize("behaviour", ["link", "hard_link", "pipe", "unix_socket", "large"])
def test_in_its_box_it_cannot_even_make_them(tmp_path: Path, behaviour: str) -> None:
    bench = Bench(tmp_path, behaviour)
    if behaviour == "large":  # refused by the limit; what it had written before is a model
        assert bench.run()
        return
    with pytest.raises(ConversionError, match="ended with exit status 1"):
        bench.run()
    assert "Error" in bench.log.read_text()


@pytest.mark.usefixtures("taken_over")
@pytest.mark.parametrize("behaviour", ["hang", "babble"])
def test_it_ends_as_soon_as_the_attempt_must(tmp_path: Path, behaviour: str) -> None:
    bench = Bench(tmp_path, behaviour)
    began = threading.Event()

    def stop() -> None:
        wait_until("it runs", lambda: converters(os.getpid()))
        bench.stopped = Outcome.CANCELLED
        began.set()

    thread = threading.Thread(target=stop)
    thread.start()
    with pytest.raises(StoppedError) as caught:
        bench.run()
    thread.join(SECONDS)
    assert began.is_set()
    assert caught.value.outcome is Outcome.CANCELLED
    assert converters(os.getpid()) == []
    assert bench.litter() == set()


@pytest.mark.usefixtures("taken_over")
def test_one_that_stands_still_is_killed(tmp_path: Path) -> None:
    bench = Bench(tmp_path, "stand_still")
    with pytest.raises(StoppedError) as caught:
        bench.run(no_progress_seconds=3)
    assert caught.value.stalled


@pytest.mark.usefixtures("taken_over")
def test_its_log_is_limited(tmp_path: Path) -> None:
    bench = Bench(tmp_path, "spill")
    assert bench.run(log_bytes=100_000)
    # What came after the last look, which is once in a second, is for the attempt to cut.
    assert bench.log.stat().st_size < 15_000_000


def converters(pid: int) -> list[psutil.Process]:
    found = []
    for process in psutil.Process(pid).children(recursive=True):
        with suppress(psutil.Error):
            if any("converter" in each or "conversion" in each for each in process.cmdline()):
                found.append(process)
    return found


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_the_converter_ends_with_the_worker(tmp_path: Path, number: signal.Signals) -> None:
    """However that ends. Ctrl-C reaches all that a terminal has started, and so not the converter."""
    code = f"""
        from pathlib import Path
        from tests.security.test_conversion import Bench, convert
        convert.MODULE = "tests.security.bad_converter"
        Bench(Path({str(tmp_path)!r}), "hang").run()
    """
    with subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)]) as worker:
        (converter,) = wait_until("it runs", lambda: converters(worker.pid), SECONDS)
        worker.send_signal(number)
        worker.wait(SECONDS)
        assert psutil.wait_procs([converter], timeout=SECONDS)[1] == []


# --- as a part of an attempt ---


@pytest.fixture
def shop(farm: Farm, tmp_path: Path) -> Iterator[Shop]:
    shop = Shop(farm, tmp_path)
    yield shop
    shop.child.kill()


def claim_of(shop: Shop, behaviour: str, timeout_seconds: float = 60) -> Claim:
    digest, _ = shop.store.put_bytes(behaviour.encode())
    with shop.farm.models() as models:
        models.add(ModelManifest(onnx=digest, onnx_size_bytes=len(behaviour)), values.INFO)
    assert shop.farm.create(spec(digest)) is not None
    return shop.farm.claimed().model_copy(update={"timeout_seconds": timeout_seconds})


def hanging(shop: Shop) -> bool:
    return bool(list(shop.folder.glob("*/typed.*/made/hanging")))


@pytest.mark.usefixtures("taken_over")
def test_the_jobs_time_counts_for_its_conversion(shop: Shop) -> None:
    claim = claim_of(shop, "hang", timeout_seconds=3)
    shop.run(claim)
    assert shop.farm.state(claim.job_id) is JobState.FAILED
    assert code_of(shop, claim) == "BUILD_TIMEOUT"
    assert converters(os.getpid()) == []


@pytest.mark.usefixtures("taken_over")
def test_cancelling_ends_the_conversion(shop: Shop) -> None:
    claim = claim_of(shop, "hang")
    with shop.running(claim):
        wait_until("it hangs", lambda: hanging(shop))
        shop.farm.cancel(claim.job_id)
    assert shop.farm.state(claim.job_id) is JobState.CANCELLED
    assert converters(os.getpid()) == []


@pytest.mark.usefixtures("taken_over")
def test_a_worker_that_stops_ends_the_conversion_and_gives_the_job_back(shop: Shop) -> None:
    claim = claim_of(shop, "hang")
    with shop.running(claim):
        wait_until("it hangs", lambda: hanging(shop))
        shop.stopping.set()
    assert shop.farm.state(claim.job_id) is JobState.QUEUED
    assert shop.farm.attempts(claim.job_id) == [(1, "released")]
    assert converters(os.getpid()) == []


@pytest.mark.usefixtures("taken_over")
def test_an_attempt_that_is_superseded_ends_its_conversion(shop: Shop) -> None:
    claim = claim_of(shop, "hang")
    with shop.running(claim):
        wait_until("it hangs", lambda: hanging(shop))
        shop.farm.change(claim.job_id, fence=claim.fence + 1)  # as if another worker had it
    assert shop.farm.attempts(claim.job_id) == [(1, None)]
    assert converters(os.getpid()) == []


@pytest.mark.usefixtures("taken_over")
def test_a_standstill_is_tried_again_at_the_cost_of_a_crash(shop: Shop) -> None:
    shop.change(no_progress_seconds=3)
    claim = claim_of(shop, "stand_still")
    shop.run(claim)
    assert shop.farm.state(claim.job_id) is JobState.QUEUED
    assert code_of(shop, claim) == "BUILD_STALLED"


@pytest.mark.usefixtures("taken_over")
def test_a_converter_that_crashes_fails_its_job_alone(shop: Shop) -> None:
    claim = claim_of(shop, "die SIGKILL")
    shop.run(claim)
    assert shop.farm.state(claim.job_id) is JobState.FAILED
    assert code_of(shop, claim) == "CONVERSION_FAILED"
    assert shop.farm.attempts(claim.job_id) == [(1, "failed")]


def test_a_converter_that_cannot_be_confined_is_not_the_jobs_fault(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(convert, "MODULE", "tests.security.unconfined_converter")
    claim = claim_of(shop, "work")
    shop.run(claim)
    assert shop.farm.state(claim.job_id) is JobState.QUEUED
    assert code_of(shop, claim) == "CONFIGURATION"


def test_a_converter_that_is_not_here(shop: Shop) -> None:
    model = models.small(shop.folder.parent / "small.onnx", 0)
    claim = claim_of(shop, model.name)
    other = claim.spec.model_copy(update={"converter": "onnxruntime-1.0.0"})
    shop.run(claim.model_copy(update={"spec": other}))
    assert code_of(shop, claim) == "CONVERTER_UNAVAILABLE"
    assert shop.farm.state(claim.job_id) is JobState.FAILED
