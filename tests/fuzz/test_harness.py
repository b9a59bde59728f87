"""What has crashed TensorRT gets a clean verdict, and the fuzzer notices what it looks for."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from onnx import ModelProto

from tests.fuzz import seeds
from tests.fuzz.mutate import MUTATIONS, Mutator
from tests.fuzz.requests import Requests, farm
from tests.fuzz.traps import Canaries, children, sockets
from trtfarm.contract.digest import Digest
from trtfarm.contract.spec import BuildSpec
from trtfarm.contract.target import Target
from trtfarm.errors import InvalidGraphError, OnnxTooComplexError
from trtfarm.inspection.pool import InspectionPool
from trtfarm_api.routes import health
from trtfarm_worker.child.process import Crashed, TensorRTChild
from trtfarm_worker.child.protocol import BuildRequest, Built, Failed
from trtfarm_worker.settings import WorkerSettings


@pytest.fixture(scope="module")
def pool() -> Iterator[InspectionPool]:
    with InspectionPool() as made:
        yield made


@pytest.fixture(scope="module")
def child(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[TensorRTChild, str]]:
    """With the runtime that it has."""
    made = TensorRTChild(WorkerSettings(scratch=tmp_path_factory.mktemp("scratch")))
    yield made, made.start().runtime
    made.kill()


def _verdict(child: tuple[TensorRTChild, str], data: bytes, folder: Path) -> Built | Failed | Crashed:
    model = folder / "model.onnx"
    model.write_bytes(data)
    target = Target(gpu="cc-8.9", compute_capability="8.9", runtime=child[1])
    request = BuildRequest(
        spec=BuildSpec(model=Digest.of_bytes(data), target=target),
        model_path=str(model),
        plan_path=str(folder / "plan"),
        io_path=str(folder / "io.json"),
        log_path=str(folder / "log"),
    )
    done = child[0].run(request, lambda: None, lambda _: None)
    assert isinstance(done, Built | Failed | Crashed)
    return done


@pytest.mark.parametrize("name", seeds.corpus())
def test_a_crasher_fails_alone(
    name: str, pool: InspectionPool, child: tuple[TensorRTChild, str], tmp_path: Path
) -> None:
    """And the next model is built by the same worker."""
    data = seeds.corpus()[name]
    (tmp_path / "model.onnx").write_bytes(data)
    with contextlib.suppress(InvalidGraphError, OnnxTooComplexError):
        pool.inspect(tmp_path / "model.onnx", {})
    done = _verdict(child, data, tmp_path)
    if isinstance(done, Crashed):
        assert done.error.code == "BUILD_CRASHED"
        assert done.status is not None
        assert done.status < 0  # TensorRT's own end: an exit status would be of a fault of ours
    assert not isinstance(done, Built)
    folder = tmp_path / "next"
    folder.mkdir()
    good = next(data for name, data in seeds.shipped().items() if "ReLU" in name)
    assert isinstance(_verdict(child, good, folder), Built)


def test_a_short_run(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.fuzz", "--seed", "3", "--minutes", "1", "--models", "60"]
    command += ["--processes", "1", "--requests", "60", "--folder", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
    report = json.loads((tmp_path / "report.json").read_text())
    assert done.returncode == 0, (done.stdout, done.stderr)
    models = report["models"]
    assert models["models"] >= 60
    assert models["accepted"] == models["models"] - models["refused by inspection"]
    assert models["accepted"] == models["built"] + models["refused by TensorRT"] + models.get("crashes", 0)
    assert models["built"] > 0
    assert report["requests"]["requests"] >= 60
    assert {"2xx", "4xx"} <= set(report["requests"])


# --- what it would notice ---


def test_every_mutation_changes_something() -> None:
    models = list(seeds.shipped().values())
    mutator = Mutator(1, models, list(seeds.light().values())[:1])
    for mutation in MUTATIONS:
        changed = 0
        for data in models[:60]:
            model = ModelProto.FromString(data)
            try:
                mutation(mutator, model)
                changed += model.SerializeToString() != data
            except (IndexError, ValueError, TypeError):
                continue
        # Files of the backend tests have neither attributes with tensors nor loops in plenty.
        assert changed, mutation.__name__


def test_the_same_seed_makes_the_same_models() -> None:
    models = list(seeds.shipped().values())
    one, same, other = (Mutator(seed, models, []) for seed in (1, 1, 2))
    made = [one.model() for _ in range(50)]
    assert made == [same.model() for _ in range(50)]
    assert made != [other.model() for _ in range(50)]


def test_canaries(tmp_path: Path) -> None:
    canaries = Canaries(tmp_path / "one", tmp_path / "other")
    assert canaries.changed() == []
    (tmp_path / "one" / "new").touch()
    (tmp_path / "other" / "secret").write_text("secret 2")
    assert len(canaries.changed()) == 2
    assert canaries.changed() == []


def test_processes_and_sockets() -> None:
    with subprocess.Popen(["sleep", "60"]) as process:
        assert process.pid in children(os.getpid())
        process.kill()
    before = sockets(os.getpid())
    with socket.socket():
        assert sockets(os.getpid()) == before + 1


def test_a_5xx_is_a_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: object) -> None:
        raise RuntimeError

    with farm(tmp_path) as (world, keys):
        asking = Requests(world, keys, 1)
        asking.run(60.0, 5, only="/readyz")
        assert not asking.faults
        monkeypatch.setattr(health.schema, "require_current", broken)
        asking.run(60.0, 10, only="/readyz")
    assert asking.counts["faults"] > 0
    assert "/readyz: 500" in asking.faults[0]
