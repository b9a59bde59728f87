"""Other priorities, many cancelled at once, quotas of keys: over HTTP and on the command line."""

from __future__ import annotations

import json
from collections.abc import Iterator

import httpx
import pytest
from typer.testing import CliRunner, Result

from tests.integration.api.world import World, problem
from trtfarm.cli.main import app
from trtfarm.contract.jobs import Scope
from trtfarm_db.repositories.keys import KeyRepository


def trtfarm(world: World, *arguments: str, said: str = "") -> Result:
    variables = {"TRTFARM_URL": world.url, "COLUMNS": "400"}
    return CliRunner().invoke(app, list(arguments), env=variables, input=said)


@pytest.fixture
def queued(world: World) -> Iterator[list[str]]:
    """Three jobs for an l4, and nothing else."""
    yield [world.job("l4")["job_id"] for _ in range(3)]
    world.http.post("/v1/jobs/cancel", json={})


def states(world: World, jobs: list[str]) -> set[str]:
    return {world.get(f"/v1/jobs/{job_id}")["state"] for job_id in jobs}


def test_another_priority(world: World, queued: list[str]) -> None:
    answer = world.http.post(f"/v1/jobs/{queued[2]}/prioritize", json={"priority": 7})
    assert (answer.status_code, answer.json()["priority"]) == (200, 7)
    assert trtfarm(world, "job", "prioritize", queued[1], "8").exit_code == 0
    document = json.loads(trtfarm(world, "job", "show", queued[1], "--json").stdout)
    assert document["priority"] == 8
    world.claim(queued[1])
    problem(world.http.post(f"/v1/jobs/{queued[1]}/prioritize", json={"priority": 1}), 409, "CONFLICT")
    for wrong in ({"priority": 101}, {}, {"priority": 1, "more": 1}):
        assert world.http.post(f"/v1/jobs/{queued[2]}/prioritize", json=wrong).status_code == 422


def test_all_that_wait(world: World, queued: list[str]) -> None:
    other = world.job("h200")["job_id"]
    answer = world.http.post("/v1/jobs/cancel", json={"gpu": "l4"})
    assert (answer.status_code, answer.json()) == (200, {"cancelled": 3, "shared": 0, "more": False})
    assert states(world, queued) == {"cancelled"}
    assert states(world, [other]) == {"queued"}
    assert world.http.post("/v1/jobs/cancel", json={}).json() == {"cancelled": 1, "shared": 0, "more": False}


def test_the_command_line_asks_first(world: World, queued: list[str]) -> None:
    assert trtfarm(world, "job", "cancel", "--all-queued", said="n\n").exit_code == 1
    assert states(world, queued) == {"queued"}
    assert trtfarm(world, "job", "cancel").exit_code == 2
    assert trtfarm(world, "job", "cancel", queued[0], "--all-queued").exit_code == 2
    done = trtfarm(world, "job", "cancel", "--all-queued", "--yes", "--json")
    assert json.loads(done.stdout) == {"cancelled": 3, "shared": 0}
    assert states(world, queued) == {"cancelled"}


def test_only_ones_own_are_cancelled(locked: World, caller) -> None:
    mine, theirs = caller(Scope.SUBMIT), caller(Scope.SUBMIT)
    jobs = [submitted(locked, each) for each in (mine, theirs)]
    assert mine.post("/v1/jobs/cancel", json={}).json()["cancelled"] == 1
    assert [locked.get(f"/v1/jobs/{job_id}")["state"] for job_id in jobs] == ["cancelled", "queued"]
    problem(mine.post("/v1/jobs/cancel", json={"everyones": True}), 403, "SCOPE_MISSING")
    assert locked.http.post("/v1/jobs/cancel", json={"everyones": True}).json()["cancelled"] == 1


def test_a_job_says_that_it_waits_for_its_quota(locked: World) -> None:
    with locked.farm.database.transaction() as connection:
        key_id, key = KeyRepository(connection).create("greedy", Scope.SUBMIT)
    database = locked.farm.database.engine.url.render_as_string(hide_password=False)
    limited = CliRunner().invoke(
        app,
        ["key", "limit", key_id, "--max-running", "1", "--json"],
        env={"TRTFARM_DATABASE_URL": database},
    )
    assert json.loads(limited.stdout) == {"key_id": key_id, "max_running": 1, "max_bytes": None}
    with httpx.Client(base_url=locked.url, headers={"Authorization": f"Bearer {key}"}) as greedy:
        first, second = (submitted(locked, greedy) for _ in range(2))
        locked.claim(first)
        assert greedy.get(f"/v1/jobs/{second}").json()["forecast"]["waiting_for"] == "quota"
    variables = {"TRTFARM_URL": locked.url, "TRTFARM_API_KEY": key}
    shown = CliRunner().invoke(app, ["job", "show", second], env=variables).stdout
    assert ", its API key has as many jobs running as it may\n" in shown


def submitted(world: World, by: httpx.Client) -> str:
    answer = by.post("/v1/jobs", json=world.request(gpu="h200"))
    assert answer.status_code == 201, answer.text
    return str(answer.json()["job"]["job_id"])
