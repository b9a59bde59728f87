"""A job from its queue to its end, as its owner sees it."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from tests.integration.api.world import World, problem


def places(world: World, jobs: list[str]) -> list[int | None]:
    return [world.get(f"/v1/jobs/{job_id}")["queue_position"] for job_id in jobs]


def eventually(told: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not told():
        assert time.monotonic() < end
        time.sleep(0.1)


def test_the_place_in_the_queue(world: World) -> None:
    jobs = [world.job("h200", priority=priority)["job_id"] for priority in (0, 5, 0, -5)]
    eventually(lambda: places(world, jobs) == [1, 0, 2, 3])
    world.claim(jobs[1])
    after = [0, None, 1, 2]
    eventually(lambda: places(world, jobs) == after)  # it may be a second old
    fleet = world.get("/v1/fleet")
    (queue,) = (each for each in fleet["queues"] if each["queue"] == "tensorrt-10.16.1.h200")
    assert (queue["queued"], queue["running"]) == (3, 1)
    assert [worker["running"] for worker in fleet["workers"]] == [0, 1]


def test_attempts(world: World) -> None:
    job_id = world.job()["job_id"]
    assert world.get(f"/v1/jobs/{job_id}")["attempts"] == []
    world.fail(world.claim(job_id), retryable=True)
    claim = world.claim(job_id)
    running = world.get(f"/v1/jobs/{job_id}")
    assert (running["state"], running["attempt"], running["worker_id"]) == ("running", 2, world.worker_id)
    assert [(each["number"], each["outcome"]) for each in running["attempts"]] == [(1, "failed"), (2, None)]
    assert running["attempts"][0]["error"]["code"] == "BUILD_FAILED"
    world.finish(claim, b"second attempt")
    done = world.get(f"/v1/jobs/{job_id}")
    assert [each["outcome"] for each in done["attempts"]] == ["failed", "complete"]
    assert (done["state"], done["worker_id"], done["queue_position"]) == ("succeeded", None, None)
    assert done["build_seconds"] == 1.5
    assert done["created_at"] <= done["started_at"] <= done["finished_at"]


def test_progress(world: World) -> None:
    job_id = world.job()["job_id"]
    claim = world.claim(job_id)
    world.renew(claim, "building", 0.25)
    assert world.get(f"/v1/jobs/{job_id}")["progress"] == {"stage": "building", "fraction": 0.25}
    world.finish(claim, b"p")
    assert world.get(f"/v1/jobs/{job_id}")["progress"] is None


def test_a_failed_job_tells_why(world: World) -> None:
    job_id = world.job()["job_id"]
    world.fail(world.claim(job_id), log=b"[E] no kernel\n")
    job = world.get(f"/v1/jobs/{job_id}")
    assert job["state"] == "failed"
    assert (job["error"]["code"], job["error"]["message"]) == ("BUILD_FAILED", "no kernel for node Add_0")
    assert world.http.get(f"/v1/jobs/{job_id}/log").text == "[E] no kernel\n"


def test_cancel_a_queued_job(world: World) -> None:
    job_id = world.job()["job_id"]
    answer = world.http.post(f"/v1/jobs/{job_id}/cancel")
    assert (answer.status_code, answer.json()["state"]) == (200, "cancelled")
    problem(world.http.post(f"/v1/jobs/{job_id}/cancel"), 409, "JOB_TERMINAL")


def test_cancel_a_running_job(world: World) -> None:
    job_id = world.job()["job_id"]
    claim = world.claim(job_id)
    assert world.renew(claim, "building") is False
    for _ in range(2):
        answer = world.http.post(f"/v1/jobs/{job_id}/cancel")
        assert (answer.status_code, answer.json()["state"]) == (200, "running")
        assert answer.json()["cancel_requested"]
    assert world.renew(claim, "building") is True
    world.fail(claim)
    assert world.get(f"/v1/jobs/{job_id}")["state"] == "cancelled"
    problem(world.http.post(f"/v1/jobs/{job_id}/cancel"), 409, "JOB_TERMINAL")


def test_cancel_a_finished_job(world: World) -> None:
    built = world.built(b"too late")
    problem(world.http.post(f"/v1/jobs/{built.job['job_id']}/cancel"), 409, "JOB_TERMINAL")
    assert world.get(f"/v1/jobs/{built.job['job_id']}") == built.job


def test_retry(world: World) -> None:
    for end in ("fail", "cancel"):
        job_id = world.job(priority=3, timeout_seconds=77)["job_id"]
        if end == "fail":
            world.fail(world.claim(job_id))
        else:
            world.http.post(f"/v1/jobs/{job_id}/cancel")
        answer = world.http.post(f"/v1/jobs/{job_id}/retry")
        assert (answer.status_code, answer.json()["disposition"]) == (201, "created")
        job = answer.json()["job"]
        assert answer.headers["location"] == f"/v1/jobs/{job['job_id']}"
        old = world.get(f"/v1/jobs/{job_id}")
        for name in ("model", "target", "config", "profiles", "build_key", "priority", "timeout_seconds"):
            assert job[name] == old[name]
        again = world.http.post(f"/v1/jobs/{job_id}/retry")
        assert (again.status_code, again.json()["disposition"]) == (200, "joined")
        world.finish(world.claim(job["job_id"]), end.encode())
        assert world.http.post(f"/v1/jobs/{job_id}/retry").json()["disposition"] == "reused"


def test_what_is_not_retried(world: World) -> None:
    job_id = world.job()["job_id"]
    problem(world.http.post(f"/v1/jobs/{job_id}/retry"), 409, "CONFLICT")
    claim = world.claim(job_id)
    problem(world.http.post(f"/v1/jobs/{job_id}/retry"), 409, "CONFLICT")
    world.finish(claim, b"fine")
    problem(world.http.post(f"/v1/jobs/{job_id}/retry"), 409, "CONFLICT")


def test_the_log(world: World) -> None:
    job_id = world.job()["job_id"]
    problem(world.http.get(f"/v1/jobs/{job_id}/log"), 409, "JOB_NOT_FINISHED")
    claim = world.claim(job_id)
    problem(world.http.get(f"/v1/jobs/{job_id}/log"), 409, "JOB_NOT_FINISHED")
    world.fail(claim, retryable=True, log="erster Versuch: µ\n".encode())
    first = world.http.get(f"/v1/jobs/{job_id}/log")
    assert first.headers["content-type"] == "text/plain; charset=utf-8"
    assert first.text == "erster Versuch: µ\n"
    world.finish(world.claim(job_id), b"x", log=b"second attempt\n")
    assert world.http.get(f"/v1/jobs/{job_id}/log").text == "second attempt\n"


def test_an_empty_log(world: World) -> None:
    job_id = world.job()["job_id"]
    world.finish(world.claim(job_id), b"y", log=b"")
    answer = world.http.get(f"/v1/jobs/{job_id}/log")
    assert (answer.status_code, answer.content) == (200, b"")


def test_a_job_that_left_no_log(world: World) -> None:
    job_id = world.job()["job_id"]
    world.finish(world.claim(job_id), b"z", log=None)
    problem(world.http.get(f"/v1/jobs/{job_id}/log"), 404, "NOT_FOUND")


@pytest.mark.parametrize("job_id", ["x", "0192f0c1-0000-7000-8000-000000000000"])
def test_a_job_that_is_not_there(world: World, job_id: str) -> None:
    for path in ("", "/log", "/events"):
        problem(world.http.get(f"/v1/jobs/{job_id}{path}"), 404, "NOT_FOUND")
    for path in ("/cancel", "/retry"):
        problem(world.http.post(f"/v1/jobs/{job_id}{path}"), 404, "NOT_FOUND")
