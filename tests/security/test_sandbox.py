"""What a model that has taken over its process can reach: nothing but itself."""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import onnx
import psutil
import pytest
from onnx import TensorProto, helper

from tests.security.hostile_child import FORBIDDEN, ITS_OWN, REFUSED, UNLIMITED_ON_A_GPU
from trtfarm import sandbox, seccomp
from trtfarm.contract.digest import Digest
from trtfarm.contract.spec import BuildSpec
from trtfarm.contract.target import Target
from trtfarm.errors import ConfigurationError
from trtfarm.sandbox import Mode, Part
from trtfarm_worker.child.process import Crashed, TensorRTChild
from trtfarm_worker.child.protocol import BuildRequest, Built
from trtfarm_worker.settings import WorkerSettings

SPEC = BuildSpec(
    model=Digest.of_bytes(b"model"),
    target=Target(gpu="cc-8.9", compute_capability="8.9", runtime=f"tensorrt-rtx-{version('tensorrt-rtx')}"),
)
RTX, GPU = "tensorrt-rtx", "tensorrt"
# Without the sandbox they work, as root and as anybody: so the test would notice if it were not there.
WORK_WITHOUT = {
    "read the worker's environment",
    "read another model",
    "list other jobs",
    "read the home",
    "write outside",
    "make a symbolic link",
    "change a mode",
    "connect by TCP",
    "connect to a Unix socket",
    "connect to an abstract socket",
    "send by UDP",
    "fork",
    "fork by clone",
    "start a program",
    "spawn a program",
    "signal the worker",
    "open the worker's pidfd",
    "slow the worker down",
    "outlive its worker",
    "share memory with others",
}


class Slot:
    """One slot of a worker, whose child a model takes over."""

    def __init__(self, folder: Path, runtime: str, mode: Mode) -> None:
        self.scratch = folder / "scratch"
        self.scratch.mkdir(exist_ok=True)
        self._folder = folder
        self._jobs = 0
        settings = {"child_module": "tests.security.hostile_child", "scratch": self.scratch, "sandbox": mode}
        limits = {"child_memory_bytes": 8 << 30, "child_file_bytes": 1 << 20}
        self.child = TensorRTChild(WorkerSettings.model_validate({"runtime": runtime, **settings, **limits}))

    def run(self, aims: dict[str, Any], submitter: str = "a") -> dict[str, Any]:
        answer, folder = self.give(json.dumps(aims).encode(), submitter)
        assert isinstance(answer, Built), (answer, (folder / "build.log").read_text())
        told: dict[str, Any] = json.loads((folder / "plan").read_text())
        return told

    def give(self, model: bytes, submitter: str = "a") -> tuple[Any, Path]:
        """One request: the child's answer, and the attempt's folder."""
        self._jobs += 1
        attempt, path = (
            self._folder / f"job{self._jobs}.1",
            self._folder / f"model{self._jobs}" / "model.onnx",
        )
        attempt.mkdir()
        path.parent.mkdir()
        path.write_bytes(model)
        request = BuildRequest(
            spec=SPEC,
            model_path=str(path),
            plan_path=str(attempt / "plan"),
            io_path=str(attempt / "io.json"),
            log_path=str(attempt / "build.log"),
        )
        return self.child.run(request, lambda: None, lambda _: None, submitter), attempt


def children() -> set[int]:
    """This process's children that a worker would have: it has others, as servers."""
    found = psutil.Process().children()
    return {process.pid for process in found if "tests.security.hostile_child" in process.cmdline()}


@pytest.fixture
def slot(tmp_path: Path) -> Iterator[Callable[[str, Mode], Slot]]:
    made: list[Slot] = []

    def make(runtime: str, mode: Mode = Mode.REQUIRED) -> Slot:
        made.append(Slot(tmp_path, runtime, mode))
        return made[-1]

    yield make
    for each in made:
        each.child.kill()


@pytest.fixture
def aims(tmp_path: Path) -> Iterator[dict[str, Any]]:
    """What is there to be reached: this process is the worker."""
    other = tmp_path / "scratch" / "models" / "other.onnx"
    other.parent.mkdir(parents=True)
    other.write_text("a model")
    abstract = f"trtfarm-{secrets.token_hex(8)}"
    shared = Path("/dev/shm") / abstract
    with (
        socket.create_server(("127.0.0.1", 0)) as tcp,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp,
        socket.socket(socket.AF_UNIX) as unix,
        socket.socket(socket.AF_UNIX) as unnamed,
        open(tmp_path / "lock", "w") as lock,  # noqa: PTH123
    ):
        udp.bind(("127.0.0.1", 0))
        unix.bind(str(tmp_path / "socket"))
        unix.listen()
        unnamed.bind("\0" + abstract)
        unnamed.listen()
        yield {
            "worker": os.getpid(),
            "other_model": str(other),
            "scratch": str(tmp_path / "scratch"),
            "home": str(Path.home()),
            "shared_memory": str(shared),
            "tcp": tcp.getsockname(),
            "udp": udp.getsockname(),
            "unix": str(tmp_path / "socket"),
            "abstract": abstract,
            "lock": lock.fileno(),
        }
    shared.unlink(missing_ok=True)


@pytest.mark.parametrize("runtime", [RTX, GPU])
def test_a_model_that_took_over_its_process_reaches_nothing(slot, aims, runtime):
    forbidden = [name for name in FORBIDDEN if runtime == RTX or name not in UNLIMITED_ON_A_GPU]
    left = sorted(seccomp.CUDA) if runtime == GPU else []
    told = slot(runtime).run(aims | {"deeds": [*ITS_OWN, *forbidden], "left": left})["told"]
    assert {told[name] for name in ITS_OWN} == {"done"}
    assert {name: told[name] for name in forbidden if told[name] not in REFUSED} == {}


def test_without_the_sandbox_it_reaches_what_it_wants(slot, aims):
    told = slot(RTX, Mode.OFF).run(aims | {"deeds": sorted(WORK_WITHOUT)})["told"]
    assert {name: told[name] for name in WORK_WITHOUT if told[name] != "done"} == {}


@pytest.mark.parametrize("runtime", [RTX, GPU])
def test_a_child_has_none_of_the_workers_environment(slot, aims, runtime, monkeypatch):
    monkeypatch.setenv("TRTFARM_DATABASE_URL", "postgresql://farm:hidden@127.0.0.1/farm")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hidden")
    one = slot(runtime)
    one.child.start()
    for process in psutil.Process().children(recursive=True):
        if "tests.security.hostile_child" in process.cmdline():
            assert "hidden" not in Path(f"/proc/{process.pid}/environ").read_text()
            assert "TRTFARM_DATABASE_URL" not in process.environ()


@pytest.mark.parametrize("runtime", [RTX, GPU])
def test_a_thread_that_a_job_leaves_behind_does_not_meet_anothers_model(slot, aims, runtime):
    one = slot(runtime)
    first = one.run(aims | {"deeds": ["linger"], "secret": "theirs"}, "a")
    second = one.run(aims | {"deeds": ["pause"], "holds": "theirs"}, "b")
    assert not psutil.pid_exists(first["pid"])
    assert second["pid"] != first["pid"]
    assert not list(one.scratch.rglob("stolen"))


def test_a_thread_that_stays_would_find_the_next_model(slot, aims):
    """A child on a GPU stays with its submitter, who may read what is his."""
    one = slot(GPU)
    first = one.run(aims | {"deeds": ["linger"], "secret": "theirs"}, "a")
    second = one.run(aims | {"deeds": ["wait for the theft"], "holds": "theirs"}, "a")
    assert (second["pid"], second["told"]) == (first["pid"], {"wait for the theft": "done"})


def test_a_submitter_meets_a_child_that_was_started_ahead(slot, aims):
    one = slot(GPU)
    first = one.run(aims | {"deeds": []}, "a")
    one.child.warm()
    (spare,) = children() - {first["pid"]}
    assert one.run(aims | {"deeds": []}, "b")["pid"] == spare


@pytest.mark.parametrize("runtime", [RTX, GPU])
def test_a_child_tells_what_is_in_force(slot, runtime):
    assert slot(runtime).child.start().sandbox == sandbox.offered()
    assert slot(runtime, Mode.OFF).child.start().sandbox == ()


def test_a_kernel_that_lacks_what_is_required_is_refused(monkeypatch):
    monkeypatch.setattr(sandbox.landlock, "abi", lambda: 0)
    assert Part.FILES not in sandbox.check(Mode.AUTO)
    with pytest.raises(ConfigurationError, match="files"):
        sandbox.check(Mode.REQUIRED)


def test_a_result_is_the_workers_own_file(slot, aims, tmp_path):
    """Also if the child puts another in its place, which only a process outside of the sandbox can."""
    one = slot(RTX, Mode.OFF)
    told = one.run(aims | {"deeds": ["make a symbolic link"]})
    assert told["told"] == {"make a symbolic link": "done"}
    assert sorted(path.name for path in (tmp_path / "job1.1").iterdir()) == ["build.log", "io.json", "plan"]


def test_a_request_has_nothing_open_but_its_log_and_the_way_to_answer(slot, aims):
    """Not the pipe of later requests, nor the one on which its end is told."""
    opened = slot(RTX).run(aims | {"deeds": []})["open"]
    assert len([name for name in opened if name.startswith("pipe:")]) == 1
    files = {name for name in opened if not name.startswith("pipe:")}
    assert all(name == "/dev/null" or name.endswith("/build.log") for name in files), files


def test_a_model_that_crashes_tensorrt_costs_no_new_process(slot):
    """Its request alone ends: SpaceToDepth divides by a block size of 0 (SIGFPE, seen with RTX 1.7.1)."""
    one = slot(RTX)
    one.child.start()
    before = children()
    answer, _ = one.give(model(helper.make_node("SpaceToDepth", ["x"], ["y"], blocksize=0)))
    assert answer == Crashed(-signal.SIGFPE)
    answer, folder = one.give(model(helper.make_node("Relu", ["x"], ["y"])))
    assert isinstance(answer, Built)
    assert (folder / "plan").stat().st_size
    assert children() == before


def test_what_ends_a_request_unexpectedly_is_in_its_log(slot):
    """The process has no other place to tell it. Here, what stands in for TensorRT can build nothing."""
    answer, folder = slot(GPU).give(model(helper.make_node("Relu", ["x"], ["y"])))
    assert answer == Crashed(1)
    assert "AttributeError" in (folder / "build.log").read_text()


def model(node: onnx.NodeProto) -> bytes:
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4, 4, 4]) for name in ("x", "y")]
    graph = helper.make_graph([node], "graph", ends[:1], ends[1:])
    opset = helper.make_opsetid("", 13)
    return helper.make_model(graph, opset_imports=[opset], ir_version=8).SerializeToString()
