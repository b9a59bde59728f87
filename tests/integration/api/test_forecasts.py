"""Where a job stands in line and what it may expect: in its document, in lists, in events and in the CLI."""

from __future__ import annotations

import json
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import update
from typer.testing import CliRunner

from tests.integration.api.test_events import following
from tests.integration.api.world import World
from trtfarm.cli.main import app
from trtfarm.contract.forecast import Outlook, QueueSnapshot, outlook
from trtfarm.contract.jobs import JobState
from trtfarm_api import forecasts
from trtfarm_db.models import Job
from trtfarm_db.repositories.jobs import JobRepository

SECONDS = (60, 120, 180)
GPU = "h200"  # one worker with one slot serves it, and l4


@pytest.fixture(scope="module")
def line(world: World) -> list[str]:
    """Three builds of a model are done; one of it runs, five wait, two of them of a model never built."""
    model = world.model()

    def job(number: int, model: str = model) -> str:
        config = {"avg_timing_iterations": number + 1}
        return str(world.post_job(world.request(model, GPU, config=config)).json()["job"]["job_id"])

    for number, seconds in enumerate(SECONDS):
        job_id = job(number)
        world.finish(world.claim(job_id), f"plan {number}".encode())
        at = datetime.now(UTC)
        change(world, job_id, started_at=at - timedelta(seconds=seconds), finished_at=at)
    jobs = [job(10)]
    world.claim(jobs[0])
    other = world.model()
    jobs += [job(11), job(12), job(13), job(14, other), job(15, other)]
    until = time.monotonic() + 10
    while world.get(f"/v1/jobs/{jobs[-1]}")["queue_position"] != 4:  # an answer may be older than the job
        assert time.monotonic() < until
    return jobs


def change(world: World, job_id: str, **columns: Any) -> None:
    with world.farm.database.transaction() as connection:
        connection.execute(update(Job).where(Job.id == job_id).values(columns))


def trtfarm(world: World, *arguments: str) -> str:
    done = CliRunner().invoke(app, list(arguments), env={"TRTFARM_URL": world.url, "COLUMNS": "400"})
    assert done.exit_code == 0, done.output
    return done.stdout


def test_a_job(world: World, line: list[str]) -> None:
    jobs = [world.get(f"/v1/jobs/{job_id}") for job_id in line]
    assert [job["queue_position"] for job in jobs] == [None, 0, 1, 2, 3, 4]
    told = [job["forecast"] for job in jobs]
    assert [each["waiting_for"] for each in told] == [None, *["slot"] * 5]
    assert [(each["basis"], each["samples"]) for each in told] == [("model", 3)] * 4 + [("target", 3)] * 2
    assert told[0]["starts"] is None
    assert 0 < told[0]["ends"]["p50"] <= 121
    assert all(each["starts"]["p10"] < each["starts"]["p50"] < each["starts"]["p90"] for each in told[2:])


def test_a_list(world: World, line: list[str]) -> None:
    listed = {job["job_id"]: job for job in world.get("/v1/jobs?limit=50")["jobs"]}
    assert [listed[job_id]["queue_position"] for job_id in line] == [None, 0, 1, 2, 3, 4]
    starts = [listed[job_id]["forecast"]["starts"]["p50"] for job_id in line[1:]]
    assert [start - starts[0] for start in starts] == pytest.approx([0, 120, 240, 360, 480], abs=1)
    done = [job for job in listed.values() if job["state"] == "succeeded"]
    assert len(done) == 3
    assert all(job["forecast"] is None for job in done)


def test_while_one_follows(world: World, line: list[str]) -> None:
    with following(world, line[2], forecasts=True) as events:
        assert (next(events).kind, next(events).kind) == ("queued", "forecast")
        event = next(events)
    assert (event.kind, event.id, event.job["queue_position"]) == ("forecast", None, 1)
    assert event.job["forecast"]["starts"]["p50"] > 60


def test_nobody_waits_while_another_works_it_out(
    world: World, line: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is told what was known; one whose job is not known yet waits for the news."""
    for how_long in ("_SECONDS", "_SHARE", "_AT_LEAST"):
        monkeypatch.setattr(forecasts, how_long, 0)
    told = forecasts.Forecasts(world.farm.database)
    with world.farm.database.transaction() as connection:
        jobs = [JobRepository(connection).get(job_id) for job_id in line[:3]]
    started = jobs[0].model_copy(update={"state": JobState.QUEUED})  # what nobody has told of it
    before = told.add_to(jobs[2])
    begun, go_on = threading.Event(), threading.Event()

    def slow(snapshot: QueueSnapshot) -> Outlook:
        begun.set()
        assert go_on.wait(20)
        return outlook(snapshot)

    monkeypatch.setattr(forecasts, "outlook", slow)
    with ThreadPoolExecutor(2) as pool:
        try:
            first = pool.submit(told.add_to, jobs[1])
            assert begun.wait(20)
            assert told.add_to(jobs[2]) == before
            unknown = pool.submit(told.add_to, started)
            with pytest.raises(TimeoutError):
                unknown.result(0.2)
        finally:
            go_on.set()
        assert first.result(20).queue_position == 0
        assert unknown.result(20).forecast is None


def test_the_command_line(world: World, line: list[str]) -> None:
    shown = trtfarm(world, "job", "show", line[2])
    assert "waits     2nd\n" in shown
    assert re.search(r"^starts    in about [2-4] min \(\d+ (s|min) to \d+ min\)$", shown, re.MULTILINE)
    assert "told by   3 earlier jobs of this model on this target\n" in shown
    assert "3 earlier jobs of this target, of other models\n" in trtfarm(world, "job", "show", line[4])
    [row] = [row for row in trtfarm(world, "job", "list").splitlines() if row.startswith(line[2])]
    assert re.search(r"2nd, starts in about [2-4] min \(", row)
    document = json.loads(trtfarm(world, "job", "show", line[2], "--json"))
    assert document["forecast"]["starts"]["p50"] > 60


def test_where_nobody_works_and_nothing_was_built(world: World) -> None:
    target = {"gpu": "rtx-4090", "runtime": "tensorrt-10.16.1"}
    request = world.request() | {"target": target, "wait_for_worker": True}
    job = world.get(f"/v1/jobs/{world.post_job(request).json()['job']['job_id']}")
    told = job["forecast"]
    assert (told["waiting_for"], told["starts"], told["ends"], told["basis"]) == ("worker", None, None, None)
    assert "waits     next, no worker for it is there and ready (trtfarm fleet)\n" in trtfarm(
        world, "job", "show", job["job_id"]
    )
