"""The best plan for a machine over HTTP: real rows, real blobs."""

from __future__ import annotations

from typing import Any

import pytest

from tests.integration.api.world import ENTERPRISE, RTX, Built, World, onnx_model, problem
from trtfarm.contract.benchmark import BenchmarkOptions, Measurement, Metric, Usage
from trtfarm.contract.device import Device
from trtfarm.contract.digest import Digest
from trtfarm.contract.fit import PlanFacts
from trtfarm.contract.machine import MachineRequest
from trtfarm.contract.names import ModelName
from trtfarm.contract.resolve import Choice, ResolveRequest
from trtfarm.sdk.client import FarmClient
from trtfarm_db.models import Benchmark
from trtfarm_db.repositories.fitting import FittingRepository

H200 = {"gpu": "NVIDIA H200", "runtime": ENTERPRISE}
METRIC = Metric(min=1, max=1, mean=1, median=1, percentiles={}, coefficient_of_variation=0)


@pytest.fixture
def model(world: World) -> str:
    return world.model()


def resolve(world: World, model: str, machine: dict[str, Any], **more: Any) -> dict[str, Any]:
    answer = world.http.post("/v1/plans/resolve", json={"model": model, "machine": machine, **more})
    assert answer.status_code == 200, answer.text
    document: dict[str, Any] = answer.json()
    return document


def build(world: World, model: str, gpu: str, runtime: str = ENTERPRISE, **config: Any) -> Built:
    request = {
        "model": model, "target": {"gpu": gpu, "runtime": runtime}, "config": config, "wait_for_worker": True,
    }  # fmt: skip
    return world.built(f"{model} {gpu} {runtime} {config}".encode(), request)


def measure(world: World, plan: Built, milliseconds: float, gpu: str = "h200") -> None:
    """As a GPU worker would have."""
    metric = METRIC.model_copy(update={"median": milliseconds})
    measurement = Measurement(
        samples=10, throughput_qps=1, host_walltime_seconds=1, total_gpu_compute_seconds=1, latency=METRIC,
        enqueue=METRIC, h2d=METRIC, gpu_compute=metric, d2h=METRIC, device_memory_bytes=1,
        host_memory_bytes=1, usage=Usage(), shapes={"x": (1, 4)},
    )  # fmt: skip
    device = Device(
        name="NVIDIA H200", gpu=gpu, uuid="GPU-0", compute_capability="9.0", multiprocessors=132,
        memory_bytes=1, driver="580.1", cuda="13.0",
    )  # fmt: skip
    with world.farm.database.transaction() as connection:
        connection.execute(
            Benchmark.__table__.insert().values(
                job_id=plan.job["job_id"],
                plan_digest=str(plan.digest),
                model_digest=plan.job["model"],
                gpu=gpu,
                runtime=plan.job["target"]["runtime"],
                options=BenchmarkOptions().model_dump(mode="json"),
                measurement=measurement.model_dump(mode="json"),
                device=device.model_dump(mode="json"),
            )
        )


def test_a_hit_says_why_and_why_no_other(world: World, model: str) -> None:
    plan = build(world, model, "h200")
    other = build(world, model, "l4")
    rtx = build(world, model, "cc-8.9", RTX)
    found = resolve(world, model, {**H200, "driver": "580.95"})
    assert (found["plan"]["digest"], found["choice"]) == (plan.digest, "only")
    assert found["machine"] == {
        "gpu": "h200", "compute_capability": "9.0", "runtime": ENTERPRISE, "driver": "580.95",
        "platform": "linux-x86_64",
    }  # fmt: skip
    assert "built for the h200" in found["why"][0]
    assert {each["digest"] for each in found["considered"]} == {other.digest, rtx.digest}
    assert all(each["distance"] > 0 and each["message"] for each in found["considered"])
    data = world.http.get(f"/v1/plans/{found['plan']['digest']}/content").content
    assert data == plan.data
    for gpu in ("rtx-4090", "NVIDIA L4", "cc-8.9", "sm_89"):
        assert resolve(world, model, {"gpu": gpu, "runtime": RTX})["plan"]["digest"] == rtx.digest
    strange = {"gpu": "NVIDIA RTX 9999 Ti", "compute_capability": "8.9", "runtime": RTX}
    found = resolve(world, model, strange)
    assert (found["plan"]["digest"], found["machine"]["gpu"]) == (rtx.digest, "rtx-9999-ti")


def test_portable_plans_of_other_targets_are_found(world: World, model: str) -> None:
    plan = build(
        world, model, "l4", "tensorrt-10.9.0",
        hardware_compatibility_level="ampere_plus", version_compatible=True,
    )  # fmt: skip
    found = resolve(world, model, H200)
    assert found["plan"]["digest"] == plan.digest
    assert "engine_host_code_allowed" in found["needs"][0]
    assert resolve(world, model, {**H200, "runtime": "tensorrt-8.6.1"})["plan"] is None
    exact = build(world, model, "h200")
    found = resolve(world, model, H200)
    assert (found["plan"]["digest"], found["choice"]) == (exact.digest, "closest")


def test_the_fastest_measured_on_this_gpu(world: World, model: str) -> None:
    slow, fast, new = (build(world, model, "h200", avg_timing_iterations=n) for n in (1, 2, 3))
    assert resolve(world, model, H200)["plan"]["digest"] == new.digest
    for plan, milliseconds in ((slow, 3.0), (fast, 2.0)):
        measure(world, plan, milliseconds)
    measure(world, new, 0.1, gpu="l4")
    found = resolve(world, model, H200)
    assert (found["plan"]["digest"], found["choice"]) == (fast.digest, "fastest")
    assert "2.000 ms" in found["why"][-1]
    asked = resolve(world, model, H200, config={"avg_timing_iterations": 1})
    assert (asked["plan"]["digest"], asked["choice"]) == (slow.digest, "only")
    assert resolve(world, model, H200, config={"avg_timing_iterations": None})["plan"] is None


def test_a_miss_tells_how_far_it_is(world: World, model: str) -> None:
    build(world, model, "h200", "tensorrt-10.16.0")
    build(world, model, "l4")
    found = resolve(world, model, H200)
    assert (found["plan"], found["choice"], found["submission"]) == (None, None, None)
    assert "built with TensorRT 10.16.0, you have 10.16.1" in found["why"][0]
    assert [each["field"] for each in found["considered"][0]["differences"]] == ["runtime"]
    assert [each["field"] for each in found["considered"][1]["differences"]] == ["compute_capability"]


def test_a_lost_plan_is_not_handed_out(world: World, model: str) -> None:
    old, best = build(world, model, "h200", avg_timing_iterations=2), build(world, model, "h200")
    assert resolve(world, model, H200)["plan"]["digest"] == best.digest
    world.blob(best.digest).unlink()
    found = resolve(world, model, H200)
    assert (found["plan"]["digest"], found["considered"][0]["digest"]) == (old.digest, best.digest)
    assert "lost" in found["considered"][0]["message"]
    path = world.blob(old.digest)
    path.chmod(0o644)
    path.write_bytes(b"x" * len(old.data))
    assert resolve(world, model, H200)["plan"] is None


def test_a_portable_plan_built_while_the_farm_looks_is_given(
    world: World, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    portable, between = FittingRepository.portable, []

    def after_a_build(fitting: FittingRepository, digest: Digest) -> list[PlanFacts]:
        between.append(build(world, model, "l4", hardware_compatibility_level="ampere_plus"))
        return portable(fitting, digest)

    monkeypatch.setattr(FittingRepository, "portable", after_a_build)
    found = resolve(world, model, H200)
    assert [found["plan"]["digest"]] == [plan.digest for plan in between]


def test_a_miss_builds_if_asked(world: World, model: str) -> None:
    build(world, model, "l4", ENTERPRISE, avg_timing_iterations=5)
    found = resolve(world, model, H200, build=True)
    job = found["submission"]["job"]
    assert (found["submission"]["disposition"], job["state"]) == ("created", "queued")
    assert (job["target"]["gpu"], job["target"]["runtime"]) == ("h200", ENTERPRISE)
    assert job["config"]["avg_timing_iterations"] == 5, "as the nearest plan was built"
    again = resolve(world, model, H200, build=True)["submission"]
    assert (again["disposition"], again["job"]["job_id"]) == ("joined", job["job_id"])
    world.finish(world.claim(job["job_id"]), b"built on a miss " + model.encode())
    assert resolve(world, model, H200, build=True)["plan"]["job_id"] == job["job_id"]
    rtx = resolve(world, model, {"gpu": "rtx-4090", "runtime": RTX}, build=True, config={"tf32": False})
    assert rtx["submission"]["job"]["target"]["gpu"] == "cc-8.9"
    assert rtx["submission"]["job"]["config"]["avg_timing_iterations"] is None
    body = {"model": model, "machine": {"gpu": "t4", "runtime": ENTERPRISE}, "build": True}
    problem(world.http.post("/v1/plans/resolve", json=body), 422, "TARGET_UNAVAILABLE")


def test_what_a_machine_cannot_say(world: World, model: str) -> None:
    for machine, code in (
        ({"runtime": ENTERPRISE}, "VALIDATION_ERROR"),
        ({"gpu": "h200", "runtime": "tensorrt"}, "UNKNOWN_RUNTIME"),
        ({"gpu": "h200", "runtime": "onnxruntime-1.2"}, "UNKNOWN_RUNTIME"),
        ({"gpu": "h200", "compute_capability": "8.9", "runtime": ENTERPRISE}, "VALIDATION_ERROR"),
        ({"gpu": "no such gpu", "runtime": ENTERPRISE}, "UNKNOWN_GPU"),
        ({"compute_capability": "nine", "runtime": ENTERPRISE}, "VALIDATION_ERROR"),
        ({"gpu": "h200"}, "VALIDATION_ERROR"),
    ):
        body = {"model": model, "machine": machine}
        problem(world.http.post("/v1/plans/resolve", json=body), 422, code)
    nothing = {"model": Digest.of_bytes(b"nothing"), "machine": H200}
    problem(world.http.post("/v1/plans/resolve", json=nothing), 404, "MODEL_NOT_FOUND")
    unnamed = {"model": "no:such", "machine": H200}
    problem(world.http.post("/v1/plans/resolve", json=unnamed), 404, "NAME_NOT_FOUND")
    assert "No plan of this model" in resolve(world, model, H200)["why"][0]


def test_by_the_client_and_by_name(world: World) -> None:
    digest = Digest(world.model(onnx_model()))
    plan = build(world, digest, "h200")
    with FarmClient(world.url) as sdk:
        sdk.tag(digest, ModelName("resolved:prod"))
        here = MachineRequest(gpu="h200", runtime=ENTERPRISE)
        question = ResolveRequest(model="resolved:prod", machine=here)  # type: ignore[arg-type]
        found = sdk.resolve(question)
    assert found.plan is not None
    assert (found.model, found.plan.digest, found.choice) == (digest, plan.digest, Choice.ONLY)
    assert found.plan.model_dump(mode="json") == world.get(f"/v1/plans/{plan.digest}")
