"""The worker's handle on its TensorRT child, with a child that misbehaves."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from trtfarm.contract.digest import Digest
from trtfarm.contract.jobs import Outcome
from trtfarm.contract.spec import BuildSpec
from trtfarm.contract.target import Target
from trtfarm.contract.v1 import Progress
from trtfarm.errors import ConfigurationError
from trtfarm_worker.child.process import Crashed, Interrupted, TensorRTChild
from trtfarm_worker.child.protocol import BuildRequest, Built, Failed
from trtfarm_worker.settings import WorkerSettings

SPEC = BuildSpec(
    model=Digest.of_bytes(b"model"),
    target=Target(gpu="cc-8.9", compute_capability="8.9", runtime="tensorrt-rtx-1.7.1.116"),
)
NOTICED_SECONDS = 3
MODULE = "tests.unit.fake_tensorrt_child"


Make = Callable[..., TensorRTChild]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Makes children with changed settings, and ends them."""
    made = []

    def child(**changes: float | str) -> TensorRTChild:
        fixed = {"child_module": MODULE, "child_start_seconds": 20, "scratch": tmp_path / "scratch"}
        variables = {"child_variables": ["FAKE_CHILD_START"]}
        made.append(TensorRTChild(WorkerSettings.model_validate(fixed | variables | changes)))
        return made[-1]

    yield child
    for each in made:
        each.kill()


@pytest.fixture
def child(make: Make) -> TensorRTChild:
    return make()


class Bench:
    """Runs builds on a child; ``run("crash")`` has it crash."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.progress: list[Progress] = []

    @property
    def plan(self) -> Path:
        return self.folder / "plan"

    def run(
        self, child: TensorRTChild, behaviour: str, interruption: Callable[[], Outcome | None] = lambda: None
    ) -> Built | Failed | Crashed | Interrupted:
        model = self.folder / "model" / "model.onnx"
        model.parent.mkdir(exist_ok=True)
        model.write_text(behaviour)
        request = BuildRequest(
            spec=SPEC,
            model_path=str(model),
            plan_path=str(self.plan),
            io_path=str(self.folder / "io"),
            log_path=str(self.folder / "log"),
        )
        return child.run(request, interruption, self.progress.append)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def children() -> list[int]:
    """Those of the child's own kind: a test session has others, its servers."""
    return [process.pid for process in psutil.Process().children() if MODULE in process.cmdline()]


def within(seconds: float, began_at: float) -> bool:
    return time.monotonic() - began_at < seconds


def after(seconds: float, outcome: Outcome) -> Callable[[], Outcome | None]:
    end = time.monotonic() + seconds
    return lambda: outcome if time.monotonic() > end else None


def test_a_build(child: TensorRTChild, bench: Bench) -> None:
    ready = child.start()
    assert (ready.runtime, ready.gpus) == ("tensorrt-rtx-1.0", ("cc-8.9",))
    assert bench.run(child, "build") == Built(build_seconds=0.1, rss_bytes=1)
    assert bench.plan.read_bytes() == b"plan"
    assert bench.progress == [Progress(stage="building", fraction=0.5)]


def test_a_child_stays_warm_also_after_a_refusal(child: TensorRTChild, bench: Bench) -> None:
    child.start()
    before = children()
    assert isinstance(bench.run(child, "refuse"), Failed)
    assert isinstance(bench.run(child, "build"), Built)
    assert children() == before


def test_a_build_starts_a_child_when_there_is_none(child: TensorRTChild, bench: Bench) -> None:
    assert isinstance(bench.run(child, "build"), Built)


def test_a_child_that_died_between_builds_is_replaced(child: TensorRTChild, bench: Bench) -> None:
    child.start()
    (pid,) = children()
    psutil.Process(pid).kill()
    psutil.wait_procs([psutil.Process(pid)], timeout=5)
    assert isinstance(bench.run(child, "build"), Built)


@pytest.mark.parametrize(
    ("behaviour", "status", "told"),
    [
        ("die", -11, "SIGSEGV"),
        ("die SIGABRT", -6, "SIGABRT"),
        ("die SIGKILL", -9, "SIGKILL"),
        ("die SIGRTMAX", -64, "signal 64|SIGRTMAX"),
        ("leave", 1, "exit status 1"),
        ("orphan", 3, "exit status 3"),
        ("garbage", None, "no message"),
        ("endless", None, "no message"),
        ("close", -9, "SIGKILL"),
    ],
)
def test_a_crash(child: TensorRTChild, bench: Bench, behaviour: str, status: int | None, told: str) -> None:
    child.start()
    began_at = time.monotonic()
    outcome = bench.run(child, behaviour)
    assert within(NOTICED_SECONDS, began_at)
    assert isinstance(outcome, Crashed)
    assert outcome.status == status
    assert outcome.error.code == "BUILD_CRASHED"
    assert any(part in outcome.error.message for part in told.split("|"))
    assert not children()
    assert isinstance(bench.run(child, "build"), Built)


def test_what_a_dead_child_had_started_ends_too(child: TensorRTChild, bench: Bench) -> None:
    assert isinstance(bench.run(child, "orphan"), Crashed)
    orphan = int(bench.plan.read_text())
    deadline = time.monotonic() + NOTICED_SECONDS
    while psutil.pid_exists(orphan) and psutil.Process(orphan).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("behaviour", ["hang", "flood"])
@pytest.mark.parametrize("outcome", [Outcome.TIMEOUT, Outcome.CANCELLED, Outcome.LOST, Outcome.RELEASED])
def test_an_interruption(child: TensorRTChild, bench: Bench, behaviour: str, outcome: Outcome) -> None:
    child.start()
    began_at = time.monotonic()
    assert bench.run(child, behaviour, after(0.2, outcome)) == Interrupted(outcome)
    assert within(NOTICED_SECONDS, began_at)
    assert not children()
    assert isinstance(bench.run(child, "build"), Built)


def test_an_interruption_while_the_child_starts(
    child: TensorRTChild, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_CHILD_START", "hang")
    began_at = time.monotonic()
    assert bench.run(child, "build", after(0.2, Outcome.CANCELLED)) == Interrupted(Outcome.CANCELLED)
    assert within(NOTICED_SECONDS, began_at)
    assert not children()


def test_what_it_prints_is_no_message(child: TensorRTChild, bench: Bench) -> None:
    assert isinstance(bench.run(child, "chatter"), Built)


def test_a_slow_start(child: TensorRTChild, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_CHILD_START", "slow")
    assert child.start().gpus


@pytest.mark.parametrize(
    ("start", "told"), [("refuse", "No bindings"), ("exit", "exit status 1"), ("hang", "in time")]
)
def test_a_child_that_cannot_start(
    make: Make, bench: Bench, monkeypatch: pytest.MonkeyPatch, start: str, told: str
) -> None:
    monkeypatch.setenv("FAKE_CHILD_START", start)
    child = make(child_start_seconds=1)
    for run in (child.start, lambda: bench.run(child, "build")):
        with pytest.raises(ConfigurationError, match=told):
            run()
        assert not children()


def test_no_such_module(make: Make) -> None:
    with pytest.raises(ConfigurationError, match="could not be loaded"):
        make(child_module="tests.unit.no_such_child").start()


@pytest.mark.parametrize(
    ("limits", "behaviour"), [({"child_max_builds": 2}, "build"), ({"child_max_rss_bytes": 100}, "build 101")]
)
def test_a_used_up_child_is_replaced(
    make: Make, bench: Bench, limits: dict[str, float], behaviour: str
) -> None:
    child = make(**limits)
    child.start()
    bench.run(child, behaviour)
    bench.run(child, behaviour)
    assert not children()
    assert isinstance(bench.run(child, "build"), Built)


def test_nothing_is_left_open(child: TensorRTChild, bench: Bench) -> None:
    before = set(Path("/proc/self/fd").iterdir())
    for behaviour in ("build", "die", "garbage", "build"):
        bench.run(child, behaviour)
    child.kill()
    child.kill()
    assert set(Path("/proc/self/fd").iterdir()) == before
    assert not children()
    assert not list((bench.folder / "scratch" / "boxes").iterdir())
