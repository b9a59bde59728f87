"""What a submission gets for the target that it names, and what a fleet shows."""

from __future__ import annotations

import time
from uuid import uuid4

from tests.integration.api.world import RTX, World, problem
from trtfarm.contract.leases import WorkerInfo
from trtfarm.contract.worker import WorkerCondition
from trtfarm_api.services.targets import _CACHE_SECONDS
from trtfarm_db.repositories.workers import WorkerRepository


def register(world: World, runtime: str, *, gpus: tuple[str, ...] = ("l40s",), stopped: bool = False) -> None:
    info = WorkerInfo(
        worker_id=str(uuid4()),
        hostname="host",
        runtime=runtime,
        platform="linux-x86_64",
        gpus=gpus,
        slots=1,
    )
    with world.farm.database.transaction() as connection:
        workers = WorkerRepository(connection)
        workers.register(info)
        if stopped:
            workers.stopped(info.worker_id)


def wait_for_the_resolver() -> None:
    """It remembers for a second what is served."""
    time.sleep(_CACHE_SECONDS + 0.1)


def test_the_newest_whose_worker_is_there(world: World) -> None:
    """A version that was tried and withdrawn must not swallow the jobs of those who name none."""
    register(world, "tensorrt-10.9.0.34")
    register(world, "tensorrt-10.16.1.11")
    register(world, "tensorrt-11.4.0.106", stopped=True)
    job = world.job("l40s")
    assert job["target"]["runtime"] == "tensorrt-10.16.1.11"


def target(world: World, gpu: str, runtime: str | None = None) -> dict[str, str]:
    request = world.request()
    request["target"] = {"gpu": gpu} | ({"runtime": runtime} if runtime else {})
    response = world.post_job(request)
    assert response.is_success, response.text
    found: dict[str, str] = response.json()["job"]["target"]
    return found


def test_a_short_name_will_do_for_a_plan_that_fits_them_all(world: World) -> None:
    """TensorRT-RTX builds for a capability, whichever product of it is meant."""
    register(world, RTX, gpus=("cc-8.0",))
    wait_for_the_resolver()
    assert target(world, "A100 80GB")["gpu"] == "cc-8.0"
    assert target(world, "A100 80GB", RTX)["gpu"] == "cc-8.0"
    request = {**world.request(), "target": {"gpu": "A100 80GB", "runtime": "tensorrt"}}
    document = problem(world.post_job(request), 422, "UNKNOWN_GPU")
    assert "a100-sxm4-80gb, a100-80gb-pcie" in document["hint"]


def test_the_nearest_targets_are_those_of_the_nearest_capability(world: World) -> None:
    register(world, RTX, gpus=("cc-8.0", "cc-12.1"))
    wait_for_the_resolver()
    request = {**world.request(), "target": {"gpu": "rtx-5090", "runtime": RTX}}
    document = problem(world.post_job(request), 422, "TARGET_UNAVAILABLE")
    assert "Nearest: cc-12.1, cc-8.9, cc-8.0, cc-7.5." in document["hint"]


def test_a_list_for_a_gpu_has_what_it_can_use(world: World) -> None:
    """Plans of TensorRT-RTX are stored under the capability."""
    built = world.built(b"a plan for any 8.9", {"model": world.model(), "target": {"gpu": "cc-8.9"}})
    elsewhere = world.built(b"a plan for any 7.5", {"model": world.model(), "target": {"gpu": "cc-7.5"}})
    for gpu in ("l4", "NVIDIA L4", "RTX 4090", "sm_89"):
        digests = [plan["digest"] for plan in world.get(f"/v1/plans?gpu={gpu}")["plans"]]
        assert built.digest in digests
        assert elsewhere.digest not in digests
        jobs = [job["job_id"] for job in world.get(f"/v1/jobs?gpu={gpu}")["jobs"]]
        assert built.job["job_id"] in jobs
    assert world.get("/v1/plans?gpu=h200")["plans"] == []


def test_the_fleet_tells_load_by_queue(world: World) -> None:
    register(world, "tensorrt-10.3.0.26", gpus=("t4",))
    wait_for_the_resolver()
    job = world.job("t4")
    fleet = world.get("/v1/fleet")
    (queue,) = [each for each in fleet["queues"] if each["queue"] == "tensorrt-10.3.0.26.t4"]
    assert queue == {"queue": queue["queue"], "queued": 1, "running": 0, "workers": 1, "slots": 1}
    (worker,) = [each for each in fleet["workers"] if each["gpus"] == ["t4"]]
    assert (worker["running"], worker["slots"], worker["alive"]) == (0, 1, True)
    for change in (
        {"draining": True},
        {"condition": WorkerCondition(paused=("disk",))},
        None,
    ):
        with world.farm.database.transaction() as connection:
            workers = WorkerRepository(connection)
            if change is None:
                workers.stopped(worker["worker_id"])
            else:
                workers.seen(worker["worker_id"], **change)
        queues = {each["queue"]: each for each in world.get("/v1/fleet")["queues"]}
        queue = queues["tensorrt-10.3.0.26.t4"]
        assert (queue["queued"], queue["workers"], queue["slots"]) == (1, 0, 0), change
    assert world.get(f"/v1/jobs/{job['job_id']}")["state"] == "queued"
