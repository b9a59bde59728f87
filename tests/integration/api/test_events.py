"""Following a job: server-sent events."""

from __future__ import annotations

import contextlib
import itertools
import json
import threading
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from tests.integration.api.world import World, problem


class Event(NamedTuple):
    kind: str
    id: int | None
    job: dict[str, Any]


def parse(lines: Iterator[str]) -> Iterator[Event]:
    fields: dict[str, str] = {}
    for line in lines:
        if line:
            name, _, value = line.partition(":")
            fields[name] = value.removeprefix(" ")
        elif "data" in fields:
            number = fields.get("id")
            yield Event(fields["event"], int(number) if number else None, json.loads(fields["data"]))
            fields = {}


@contextlib.contextmanager
def following(
    world: World, job_id: str, last: int | None = None, *, forecasts: bool = False
) -> Iterator[Iterator[Event]]:
    headers = {} if last is None else {"Last-Event-ID": str(last)}
    with world.http.stream("GET", f"/v1/jobs/{job_id}/events", headers=headers) as response:
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        assert response.headers["cache-control"] == "no-cache"
        yield (event for event in parse(response.iter_lines()) if forecasts or event.kind != "forecast")


def all_events(world: World, job_id: str, last: int | None = None) -> list[Event]:
    with following(world, job_id, last) as events:
        return list(events)


def test_a_job_as_it_happens(world: World) -> None:
    job_id = world.job()["job_id"]
    with following(world, job_id) as events:
        assert next(events).kind == "queued"
        claim = world.claim(job_id)
        started = next(events)
        assert (started.kind, started.job["state"]) == ("started", "running")
        for fraction in (0.25, 0.5):
            world.renew(claim, "building", fraction)
            progress = next(events)
            assert (progress.kind, progress.id) == ("progress", None)
            assert progress.job["progress"] == {"stage": "building", "fraction": fraction}
        world.finish(claim, b"followed")
        done = next(events)
        assert (done.kind, done.job["state"]) == ("succeeded", "succeeded")
        assert done.job["plan"]["size_bytes"] == 8
        assert list(events) == []  # and the stream ends


@pytest.mark.parametrize("end", ["failed", "cancelled"])
def test_other_ends(world: World, end: str) -> None:
    job_id = world.job()["job_id"]
    with following(world, job_id) as events:
        next(events)
        if end == "failed":
            world.fail(world.claim(job_id))
        else:
            world.http.post(f"/v1/jobs/{job_id}/cancel")
        *_, last = events
        assert (last.kind, last.job["state"]) == (end, end)


def test_a_job_that_has_ended(world: World) -> None:
    built = world.built(b"ended")
    events = all_events(world, built.job["job_id"])
    assert [event.kind for event in events] == ["queued", "started", "succeeded"]
    assert [event.id for event in events] == sorted(event.id or 0 for event in events)
    assert all(event.job == built.job for event in events)


def test_resuming(world: World) -> None:
    """From after each event: exactly those that follow."""
    job_id = world.job()["job_id"]
    for _ in range(2):
        world.fail(world.claim(job_id), retryable=True)
    world.finish(world.claim(job_id), b"third time lucky")
    events = all_events(world, job_id)
    kinds = ["queued", "started", "requeued", "started", "requeued", "started", "succeeded"]
    assert [event.kind for event in events] == kinds
    for index, event in enumerate(events):
        assert all_events(world, job_id, event.id) == events[index + 1 :]


def test_resuming_in_the_middle_of_a_build(world: World) -> None:
    job_id = world.job()["job_id"]
    claim = world.claim(job_id)
    with following(world, job_id) as events:
        last = next(itertools.islice(events, 1, None)).id
    with following(world, job_id, last) as events:
        world.renew(claim, "building", 0.5)
        assert next(events).kind == "progress"
        world.finish(claim, b"resumed")
        assert [event.kind for event in events] == ["succeeded"]


def test_many_followers(world: World) -> None:
    """More than there are threads and connections to the database."""
    job_id = world.job()["job_id"]
    seen: list[list[str]] = []
    ready = threading.Barrier(61)

    def follow() -> None:
        with following(world, job_id) as events:
            kinds = [next(events).kind]
            ready.wait(20)
            seen.append(kinds + [event.kind for event in events])

    followers = [threading.Thread(target=follow) for _ in range(60)]
    for follower in followers:
        follower.start()
    ready.wait(20)
    world.finish(world.claim(job_id), b"for all")
    for follower in followers:
        follower.join()
    assert len(seen) == 60
    assert {(kinds[0], kinds[-1]) for kinds in seen} == {("queued", "succeeded")}


def test_no_stream_of_a_job_that_is_not_there(world: World) -> None:
    problem(world.http.get("/v1/jobs/x/events"), 404, "NOT_FOUND")


@pytest.mark.parametrize("last", ["-1", "x", str(2**63), str(10**30)])
def test_an_event_id_that_nobody_gave(world: World, last: str) -> None:
    job_id = world.job()["job_id"]
    answer = world.http.get(f"/v1/jobs/{job_id}/events", headers={"Last-Event-ID": last})
    problem(answer, 422, "VALIDATION_ERROR")


def test_the_end_is_never_missed(world: World) -> None:
    """Whenever it comes: between the two looks of one round too."""
    for number in range(8):
        job_id = world.job()["job_id"]
        claim = world.claim(job_id)
        with following(world, job_id) as events:
            next(events)
            world.finish(claim, f"end {number}".encode())
            *_, last = events
            assert last.kind == "succeeded"
