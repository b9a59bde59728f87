"""A submission creates a job, joins one, or reuses a plan; once, however often it is sent."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import pytest

from tests.integration.api.world import RTX, World, onnx_model, problem
from trtfarm.contract.digest import Digest


def test_created_joined_reused(world: World) -> None:
    request = world.request()
    created = world.post_job(request)
    assert (created.status_code, created.json()["disposition"]) == (201, "created")
    job = created.json()["job"]
    assert created.headers["location"] == f"/v1/jobs/{job['job_id']}"
    assert job["state"] == "queued"
    assert job["target"] == {
        "gpu": "cc-8.9",
        "compute_capability": "8.9",
        "runtime": RTX,
        "platform": "linux-x86_64",
    }

    joined = world.post_job(request)
    assert (joined.status_code, joined.json()["disposition"]) == (200, "joined")
    assert joined.json()["job"]["job_id"] == job["job_id"]
    assert joined.headers["location"] == created.headers["location"]

    claim = world.claim(job["job_id"])
    running = world.post_job(request).json()
    assert (running["disposition"], running["job"]["state"]) == ("joined", "running")

    world.finish(claim, b"a plan")
    reused = world.post_job(request)
    assert (reused.status_code, reused.json()["disposition"]) == (200, "reused")
    assert reused.json()["job"] == {**world.get(f"/v1/jobs/{job['job_id']}"), "attempts": None}
    assert reused.json()["job"]["plan"]["digest"] == Digest.of_bytes(b"a plan")


def test_all_names_of_a_gpu_are_one_target(world: World) -> None:
    model = world.model()
    first = world.post_job(world.request(model, "cc-8.9")).json()["job"]["job_id"]
    for name in ("sm_89", "8.9", "rtx-4090", "NVIDIA GeForce RTX 4090", "L4"):
        request = world.request(model) | {"target": {"gpu": name, "runtime": "tensorrt-rtx"}}
        assert world.post_job(request).json()["job"]["job_id"] == first, name


def test_a_gpu_of_its_own_goes_before_its_capability(world: World) -> None:
    """Who names a product gets the plan for it, where a worker builds that."""
    assert world.job("l4")["target"]["runtime"] == "tensorrt-10.16.1"
    assert world.job("rtx-4090")["target"]["gpu"] == "cc-8.9"


@pytest.mark.parametrize("change", [{"priority": 7}, {"timeout_seconds": 60}, {"wait_for_worker": True}])
def test_what_does_not_change_the_plan_joins(world: World, change: dict[str, object]) -> None:
    request = world.request()
    world.post_job(request)
    assert world.post_job(request | change).json()["disposition"] == "joined"


def test_a_config_that_spells_out_a_default_joins(world: World) -> None:
    request = world.request()
    world.post_job(request)
    same = request | {"config": {"tf32": True, "sparsity": "disable", "fp16": False}}
    assert world.post_job(same).json()["disposition"] == "joined"
    other = request | {"config": {"tf32": False}}
    assert world.post_job(other).json()["disposition"] == "created"


def test_a_failed_job_is_no_answer(world: World) -> None:
    request = world.request()
    first = world.post_job(request).json()["job"]["job_id"]
    world.fail(world.claim(first))
    second = world.post_job(request).json()
    assert second["disposition"] == "created"
    assert second["job"]["job_id"] != first


def test_thirty_at_once_are_one_job(world: World) -> None:
    request = world.request()
    with ThreadPoolExecutor(30) as pool:
        answers = [answer.json() for answer in pool.map(lambda _: world.post_job(request), range(30))]
    assert len({answer["job"]["job_id"] for answer in answers}) == 1
    assert sorted(answer["disposition"] for answer in answers) == ["created"] + ["joined"] * 29


def test_thirty_at_once_reuse_a_plan(world: World) -> None:
    built = world.built(b"shared by thirty")
    with ThreadPoolExecutor(30) as pool:
        answers = [answer.json() for answer in pool.map(lambda _: world.post_job(built.request), range(30))]
    assert {(answer["disposition"], answer["job"]["job_id"]) for answer in answers} == {
        ("reused", built.job["job_id"])
    }


# --- Idempotency-Key ---


def test_the_same_key_gives_the_same_answer(world: World) -> None:
    request, key = world.request(), uuid4().hex
    first = world.post_job(request, key)
    again = world.post_job(request, key)
    assert (again.status_code, again.json()) == (first.status_code, first.json())
    job_id = first.json()["job"]["job_id"]
    world.finish(world.claim(job_id), b"built between")
    later = world.post_job(request, key).json()
    assert (later["disposition"], later["job"]["job_id"]) == ("created", job_id)


def test_the_same_key_stands_for_a_cancelled_job_too(world: World) -> None:
    """A repeated call must not start what was cancelled since."""
    request, key = world.request(), uuid4().hex
    job_id = world.post_job(request, key).json()["job"]["job_id"]
    world.http.post(f"/v1/jobs/{job_id}/cancel")
    again = world.post_job(request, key).json()["job"]
    assert (again["job_id"], again["state"]) == (job_id, "cancelled")


def test_the_order_of_a_body_does_not_matter(world: World) -> None:
    request, key = world.request(), uuid4().hex
    first = world.post_job(request, key).json()
    assert world.post_job(dict(reversed(request.items())), key).json() == first


def test_the_same_key_for_another_request(world: World) -> None:
    request, key = world.request(), uuid4().hex
    world.post_job(request, key)
    problem(world.post_job(request | {"priority": 1}, key), 409, "IDEMPOTENCY_CONFLICT")


def test_the_same_key_at_once(world: World) -> None:
    request, key = world.request(), uuid4().hex
    with ThreadPoolExecutor(20) as pool:
        answers = [answer.json() for answer in pool.map(lambda _: world.post_job(request, key), range(20))]
    assert len({answer["job"]["job_id"] for answer in answers}) == 1
    assert {answer["disposition"] for answer in answers} == {"created"}


def test_the_same_key_for_two_requests_at_once(world: World) -> None:
    """One wins, and leaves no job of the other behind."""
    requests, key = [world.request() for _ in range(8)], uuid4().hex
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda request: world.post_job(request, key), requests))
    assert sorted(answer.status_code for answer in answers) == [201] + [409] * 7
    jobs = [world.get(f"/v1/jobs?model={request['model']}")["jobs"] for request in requests]
    assert sum(map(len, jobs)) == 1


@pytest.mark.parametrize("key", ["x" * 256, "two words", ""])
def test_keys_that_are_refused(world: World, key: str) -> None:
    answer = world.http.post("/v1/jobs", json=world.request(), headers={"Idempotency-Key": key})
    problem(answer, 422, "VALIDATION_ERROR")


def test_a_key_of_bytes_that_are_no_text(world: World) -> None:
    answer = world.http.post("/v1/jobs", json=world.request(), headers={"Idempotency-Key": b"\xff\xfe"})
    problem(answer, 422, "VALIDATION_ERROR")


# --- profiles and targets ---


def test_a_dynamic_model_with_its_profile(world: World) -> None:
    shapes = {"min": [1, 4], "opt": [8, 4], "max": [32, 4]}
    model = world.model(onnx_model(shape=("batch", 4)))
    job = world.post_job(world.request(model, profiles=[{"x": shapes}])).json()["job"]
    assert job["profiles"] == [{"x": shapes}]


def test_waiting_for_a_worker(world: World) -> None:
    request = world.request() | {"target": {"gpu": "h100-pcie", "runtime": "tensorrt-10.9.0.34"}}
    problem(world.post_job(request), 422, "UNKNOWN_RUNTIME")
    waiting = world.post_job(request | {"wait_for_worker": True})
    assert waiting.status_code == 201
    assert waiting.json()["job"]["target"]["runtime"] == "tensorrt-10.9.0.34"
    vague = request | {"wait_for_worker": True, "target": {"gpu": "h100", "runtime": "tensorrt"}}
    problem(world.post_job(vague), 422, "UNKNOWN_GPU")
    vague["target"]["gpu"] = "h100-pcie"
    problem(world.post_job(vague), 422, "TARGET_UNAVAILABLE")


def test_metrics_count_submissions(world: World) -> None:
    world.built(b"counted")
    text = world.http.get("/metrics").text
    for disposition in ("created", "joined", "reused"):
        assert f'trtfarm_submissions_total{{disposition="{disposition}"}}' in text
