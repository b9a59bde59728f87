"""Lists of jobs and plans: filters, and pages to the end."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest

from tests.integration.api.world import RTX, Built, World, problem


@pytest.fixture(scope="module")
def jobs(world: World) -> list[str]:
    """Newest first. Every third is for an H200, the first five are cancelled."""
    made = [world.job("h200" if number % 3 == 0 else "cc-8.9")["job_id"] for number in range(23)]
    for job_id in made[:5]:
        world.http.post(f"/v1/jobs/{job_id}/cancel")
    return made[::-1]


@pytest.fixture(scope="module")
def plans(world: World, jobs: list[str]) -> list[Built]:
    return [world.built(f"plan {number}".encode()) for number in range(7)][::-1]


def pages(world: World, path: str, kind: str, **filters: Any) -> list[list[dict[str, Any]]]:
    found, cursor = [], None
    while True:
        answer = world.http.get(path, params=filters | ({"cursor": cursor} if cursor else {}))
        assert answer.status_code == 200, answer.text
        found.append(answer.json()[kind])
        cursor = answer.json()["next"]
        if cursor is None:
            return found


def ids(world: World, **filters: Any) -> list[str]:
    return [job["job_id"] for page in pages(world, "/v1/jobs", "jobs", **filters) for job in page]


@pytest.mark.parametrize("limit", [1, 5, 22, 23, 24, 500])
def test_pages_to_the_end(world: World, jobs: list[str], limit: int) -> None:
    """Without gaps or repeats, whatever the size; new jobs do not push old ones onto the next page."""
    oldest = jobs[-1]
    found = pages(world, "/v1/jobs", "jobs", limit=limit)
    assert all(len(page) == limit for page in found[:-1])
    listed = [job["job_id"] for page in found for job in page]
    assert listed[len(listed) - len(jobs) :] == jobs
    assert listed[-1] == oldest


def test_jobs_made_while_paging_do_not_shift_pages(world: World, jobs: list[str]) -> None:
    first = world.get("/v1/jobs?limit=10")
    world.http.post(f"/v1/jobs/{world.job()['job_id']}/cancel")
    second = world.get(f"/v1/jobs?limit=10&cursor={first['next']}")
    seen = [job["job_id"] for page in (first, second) for job in page["jobs"]]
    assert len(set(seen)) == 20
    assert seen == sorted(seen, reverse=True)


def test_filters(world: World, jobs: list[str]) -> None:
    everything = pages(world, "/v1/jobs", "jobs", limit=500)[0]
    for state in ("queued", "cancelled", "running"):
        expected = [job["job_id"] for job in everything if job["state"] == state]
        assert ids(world, state=state, limit=4) == expected
    both = ids(world, state=["queued", "cancelled"])
    assert both == [job["job_id"] for job in everything if job["state"] in {"queued", "cancelled"}]
    expected = [job["job_id"] for job in everything if job["target"]["gpu"] == "h200"]
    assert ids(world, gpu="h200", limit=3) == expected
    assert len(expected) >= 8
    assert ids(world, model=everything[0]["model"]) == [everything[0]["job_id"]]
    assert ids(world, model="sha256:" + "0" * 64) == []
    assert ids(world, gpu="h200", state="cancelled") == [
        job["job_id"] for job in everything if job["target"]["gpu"] == "h200" and job["state"] == "cancelled"
    ]


def test_plans_are_listed(world: World, plans: list[Built]) -> None:
    found = pages(world, "/v1/plans", "plans", limit=3)
    assert [len(page) for page in found] == [3, 3, 1]
    assert [plan["digest"] for page in found for plan in page] == [built.digest for built in plans]
    one = world.get(f"/v1/plans?model={plans[0].job['model']}")["plans"]
    assert one == [world.get(f"/v1/plans/{plans[0].digest}")] == [plans[0].job["plan"]]
    assert len(world.get(f"/v1/plans?gpu=cc-8.9&runtime={RTX}")["plans"]) == 7
    for filters in ("gpu=h200", "runtime=tensorrt-8.6.1", "model=sha256:" + "0" * 64):
        assert world.get(f"/v1/plans?{filters}") == {"plans": [], "next": None}


@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/plans"])
def test_cursors_that_nobody_gave(world: World, path: str) -> None:
    real = str(uuid4())
    for cursor in ("", "x", "-1", "' OR 1=1", real[:-1], real.upper(), f"{{{real}}}", real.replace("-", "")):
        problem(world.http.get(path, params={"cursor": cursor}), 400, "INVALID_CURSOR")


@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/plans"])
@pytest.mark.parametrize("limit", ["0", "-1", "501", "1000000000", "x", "1.5"])
def test_limits_that_are_refused(world: World, path: str, limit: str) -> None:
    problem(world.http.get(path, params={"limit": limit}), 422, "VALIDATION_ERROR")


def test_filters_that_are_refused(world: World) -> None:
    problem(world.http.get("/v1/jobs?state=done"), 422, "VALIDATION_ERROR")
    problem(world.http.get("/v1/jobs?model=sha256:12"), 422, "INVALID_DIGEST")
    problem(world.http.get("/v1/plans?model=sha256:12"), 422, "INVALID_DIGEST")
