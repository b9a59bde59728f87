"""``trtfarm benchmark`` against a served farm; a stand-in for its GPU worker claims and finishes the jobs."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.integration.api.world import ENTERPRISE, World, onnx_model, problem
from tests.integration.test_benchmark_jobs import measured
from trtfarm.cli.main import app
from trtfarm.contract.digest import Digest
from trtfarm.contract.jobs import JobKind
from trtfarm.contract.leases import Claim
from trtfarm.contract.target import queue_name

QUEUE = queue_name(ENTERPRISE, "l4")
DYNAMIC = "x:8x4"
IO = json.dumps({"inputs": [{"name": "x", "dtype": "float32", "shape": [1, 4]}], "profiles": []}).encode()


class Worker:
    """Serves one queue; ``claims`` are what it was given."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.claims: list[Claim] = []
        self.fails = False
        self.stop = threading.Event()

    def run(self) -> None:
        while not self.stop.is_set():
            with self._world.leases() as leases:
                claim = leases.claim([QUEUE], self._world.worker_id, "GPU-1")
            if claim is None:
                time.sleep(0.02)
                continue
            self.claims.append(claim)
            if self.fails:
                self._world.fail(claim)
            elif claim.kind is JobKind.BUILD:
                self._world.finish(claim, f"plan of {claim.spec.build_key}".encode(), io=IO)
            else:
                with self._world.leases() as leases:
                    leases.finish_benchmark(claim, measured())

    @property
    def kinds(self) -> list[str]:
        return [claim.kind.value for claim in self.claims]


@pytest.fixture
def worker(world: World) -> Iterator[Worker]:
    worker = Worker(world)
    thread = threading.Thread(target=worker.run, daemon=True)
    thread.start()
    yield worker
    worker.stop.set()
    thread.join()


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.onnx"
    path.write_bytes(onnx_model())
    return path


def benchmark(world: World, *arguments: object) -> tuple[int, dict[str, Any]]:
    """Exit status and document."""
    command = ["benchmark", *map(str, arguments), "--json"]
    done = CliRunner().invoke(app, command, env={"TRTFARM_URL": world.url})
    return done.exit_code, json.loads(done.stdout)


def test_a_model_is_built_and_measured(world: World, worker: Worker, model: Path) -> None:
    status, document = benchmark(world, model, "--gpu", "l4", "--fp16", "--duration=1", "--priority=3")
    assert status == 0
    assert worker.kinds == ["build", "benchmark"]
    assert document["build"]["state"] == document["state"] == "succeeded"
    assert document["benchmark"]["plan"] == document["build"]["plan"]["digest"]
    assert document["benchmark"]["measurement"]["throughput_qps"] == 500
    build, measurement = worker.claims
    assert build.spec.config.fp16 is True
    assert build.spec.converter is None  # TensorRT 10 has a flag for it
    assert measurement.benchmark is not None
    assert measurement.benchmark.options.duration_seconds == 1


def test_a_plan_that_is_there_is_reused(world: World, worker: Worker, model: Path) -> None:
    _, first = benchmark(world, model, "--gpu", "l4")
    _, again = benchmark(world, first["build"]["model"], "--gpu", "l4")
    assert worker.kinds == ["build", "benchmark", "benchmark"]
    assert again["build"]["job_id"] == first["build"]["job_id"]
    assert again["job_id"] != first["job_id"]


def test_a_plan_by_digest_by_its_first_digits_and_by_its_file(
    world: World, worker: Worker, model: Path, tmp_path: Path
) -> None:
    _, first = benchmark(world, model, "--gpu", "l4")
    digest = first["build"]["plan"]["digest"]
    file = tmp_path / "a.plan"
    file.write_bytes(world.http.get(f"/v1/plans/{digest}/content").content)
    for name in (digest, digest.removeprefix("sha256:")[:12], file):
        status, document = benchmark(world, name)
        assert status == 0
        assert document["benchmark"]["plan"] == digest
        assert "build" not in document
    assert worker.kinds == ["build", *["benchmark"] * 4]


def test_shapes_alone_make_the_profile_as_in_trtexec(world: World, worker: Worker, tmp_path: Path) -> None:
    path = tmp_path / "dynamic.onnx"
    path.write_bytes(onnx_model(shape=("n", 4)))
    status, _ = benchmark(world, path, "--gpu", "l4", f"--shapes={DYNAMIC}")
    assert status == 0
    (profile,) = worker.claims[0].spec.profiles
    assert {getattr(profile.root["x"], which) for which in ("min", "opt", "max")} == {(8, 4)}
    ranges = ["--minShapes=x:1x4", "--optShapes=x:4x4", "--maxShapes=x:8x4"]
    status, _ = benchmark(world, path, "--gpu", "l4", f"--shapes={DYNAMIC}", *ranges)
    assert status == 0
    assert worker.claims[2].spec.profiles[0].root["x"].min == (1, 4)
    assert worker.claims[3].benchmark is not None
    assert worker.claims[3].benchmark.options.shapes == {"x": (8, 4)}


def test_a_build_that_fails(world: World, worker: Worker, model: Path) -> None:
    worker.fails = True
    status, document = benchmark(world, model, "--gpu", "l4")
    assert status == 1
    assert worker.kinds == ["build"]
    assert document["build"]["error"]["code"] == "BUILD_FAILED"


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ([], "VALIDATION_ERROR"),
        (["--gpu", "cc-8.9"], "VALIDATION_ERROR"),
        (["--gpu", "l4", "--saveEngine=x"], "VALIDATION_ERROR"),
        (["--gpu", "l4", "--buildOnly"], "VALIDATION_ERROR"),
        (["--gpu", "l4", "--duration=-1"], "VALIDATION_ERROR"),
        (["--gpu", "l4", "--noSuchThing"], "OPTION_UNKNOWN"),
    ],
)
def test_refused_before_anything_is_sent(world: World, model: Path, arguments: list[str], code: str) -> None:
    status, document = benchmark(world, model, *arguments)
    assert (status, document["error"]["code"]) == (2, code)


def test_a_plan_has_no_build_options(world: World, worker: Worker, model: Path) -> None:
    _, first = benchmark(world, model, "--gpu", "l4")
    for option in ("--fp16", "--runtime=tensorrt"):
        status, document = benchmark(world, first["build"]["plan"]["digest"], option)
        assert (status, document["error"]["code"]) == (2, "VALIDATION_ERROR")
        assert option.partition("=")[0] in document["error"]["message"]


def test_what_there_is_not(world: World, tmp_path: Path) -> None:
    stranger = tmp_path / "stranger.plan"
    stranger.write_bytes(b"of another farm")
    missing = "sha256:" + 64 * "0"
    for name, code in ((stranger, "NOT_FOUND"), ("0123456789ab", "NOT_FOUND"), (missing, "MODEL_NOT_FOUND")):
        status, document = benchmark(world, name, "--gpu", "l4")
        assert (status, document["error"]["code"]) == (3, code)
    status, document = benchmark(world, tmp_path / "none.onnx", "--gpu", "l4")
    assert (status, document["error"]["code"]) == (2, "LOCAL_FILE")


def test_inputs_from_files(world: World, worker: Worker, model: Path, tmp_path: Path) -> None:
    file = tmp_path / "x.bin"
    file.write_bytes(bytes(range(16)))
    status, document = benchmark(world, model, "--gpu", "l4", f"--loadInputs=x:{file}")
    assert status == 0
    work = worker.claims[-1].benchmark
    assert work is not None
    assert work.options.inputs == {"x": Digest.of_bytes(bytes(range(16)))}
    assert work.input_sizes == {"x": 16}
    plan = document["build"]["plan"]["digest"]
    for data, name, code, words in (
        (bytes(15), "x", "VALIDATION_ERROR", "has 15 bytes; float32 of 1x4 takes 16"),
        (bytes(16), "z", "VALIDATION_ERROR", "no input 'z'"),
        (b"", "x", "VALIDATION_ERROR", "is empty"),
        (None, "x", "LOCAL_FILE", "there is no file"),
    ):
        file.unlink(missing_ok=True)
        if data is not None:
            file.write_bytes(data)
        status, document = benchmark(world, plan, f"--loadInputs={name}:{file}")
        assert (status, document["error"]["code"]) == (2, code)
        assert words in document["error"]["message"]
    assert worker.kinds == ["build", "benchmark"]


def test_inputs_must_be_uploaded(world: World, worker: Worker, model: Path) -> None:
    _, first = benchmark(world, model, "--gpu", "l4")
    request = {
        "kind": "benchmark",
        "plan": first["build"]["plan"]["digest"],
        "benchmark": {"inputs": {"x": "sha256:" + 64 * "7"}},
    }
    problem(world.post_job(request), 404, "BLOB_MISSING")


@pytest.mark.parametrize(
    ("option", "hint"),
    [("--useCudaGraph", "so it is by default"), ("--avgRuns=10", "--help"), ("--threads", "--help")],
)
def test_options_of_inference_that_there_are_not(world: World, model: Path, option: str, hint: str) -> None:
    status, document = benchmark(world, model, "--gpu", "l4", option)
    assert (status, document["error"]["code"]) == (2, "OPTION_UNSUPPORTED")
    assert hint in document["error"]["hint"]
