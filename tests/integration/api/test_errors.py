"""Every error is a problem document; health and metrics say how the farm is."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import make_url, text

from tests.integration.api.test_auth import OPEN, routes
from tests.integration.api.wires import Line
from tests.integration.api.world import World, client, onnx_model, open_farm, problem, serving
from trtfarm.contract.worker import Pause, WorkerCondition
from trtfarm.inspection.pool import InspectionPool
from trtfarm_db.repositories.workers import WorkerRepository

DIGEST = "sha256:" + "0" * 64


@pytest.fixture
def far(
    farm_url: str, tmp_path_factory: pytest.TempPathFactory, inspection: InspectionPool
) -> Iterator[tuple[World, Line]]:
    """A farm, and the line to its database."""
    place = make_url(farm_url)
    line = Line(place.host or "", place.port or 5432)
    url = place.set(host="127.0.0.1", port=line.port).render_as_string(hide_password=False)
    farm = open_farm(url, tmp_path_factory.mktemp("far"), inspection)
    with serving(farm) as address, client(address) as http:
        yield World(farm, address, http), line
    farm.database.close()
    with contextlib.suppress(OSError):
        line.cut()


@pytest.mark.parametrize("path", ["/nothing", "/v1", "/v1/jobs/x/nothing", "/v2/jobs", "/v1/jobs/x/log/y"])
def test_no_such_route(world: World, path: str) -> None:
    problem(world.http.get(path), 404, "NOT_FOUND")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("DELETE", "/v1/fleet", {"GET"}),
        ("POST", "/healthz", {"GET"}),
        ("GET", "/v1/jobs/x/cancel", {"POST"}),
        ("PUT", f"/v1/plans/{DIGEST}", {"GET"}),
    ],
)
def test_another_method(world: World, method: str, path: str, allowed: set[str]) -> None:
    answer = world.http.request(method, path)
    problem(answer, 405, "METHOD_NOT_ALLOWED")
    assert set(answer.headers["allow"].replace(" ", "").split(",")) == allowed


def test_what_nobody_thought_of(world: World) -> None:
    """A problem document too, without a word about the farm's inside."""
    with world.farm.database.engine.begin() as connection:
        connection.execute(text("ALTER TABLE jobs RENAME TO jobs_away"))
    try:
        document = problem(world.http.get("/v1/jobs"), 500, "INTERNAL")
        assert "jobs_away" not in str(document)
        assert "SELECT" not in str(document)
    finally:
        with world.farm.database.engine.begin() as connection:
            connection.execute(text("ALTER TABLE jobs_away RENAME TO jobs"))
    assert world.http.get("/v1/jobs").status_code == 200


def test_health(world: World) -> None:
    assert world.get("/healthz") == {"status": "ok"}
    assert world.get("/readyz") == {"status": "ready"}


def test_not_ready_without_a_store(world: World) -> None:
    root = world.blob(DIGEST).parents[2]
    away = root.with_name("away")
    root.rename(away)
    try:
        problem(world.http.get("/readyz"), 503, "CONFIGURATION")
        assert world.http.get("/healthz").status_code == 200
    finally:
        shutil.rmtree(root, ignore_errors=True)
        away.rename(root)


def test_not_ready_with_another_schema(world: World) -> None:
    with world.farm.database.engine.begin() as connection:
        before = connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one()
        connection.execute(text("UPDATE alembic_version SET version_num = 'old'"))
    try:
        assert "trtfarm db upgrade" in problem(world.http.get("/readyz"), 503, "CONFIGURATION")["hint"]
    finally:
        with world.farm.database.engine.begin() as connection:
            connection.execute(text("UPDATE alembic_version SET version_num = :old"), {"old": before})


def test_metrics(world: World) -> None:
    world.job()
    world.claim(world.job("h200")["job_id"])
    world.http.get("/nothing")
    with world.farm.database.transaction() as connection:
        worker = WorkerRepository(connection).views()[0]
        told = WorkerCondition(
            paused=(Pause.DISK,), spool_entries=2, spool_bytes=300, scratch_free_bytes=4000
        )
        WorkerRepository(connection).seen(worker.worker_id, condition=told)
    answer = world.http.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    lines = answer.text.splitlines()
    for expected in (
        'trtfarm_jobs{queue="tensorrt-rtx-1.7.1.116.cc-8.9",state="queued"} 1.0',
        'trtfarm_jobs{queue="tensorrt-10.16.1.h200",state="running"} 1.0',
        'trtfarm_workers_alive{runtime="tensorrt-10.16.1"} 1.0',
        'trtfarm_workers_paused{reason="disk"} 1.0',
        'trtfarm_workers_paused{reason="crashes"} 0.0',
        f'trtfarm_spool_entries{{hostname="{worker.hostname}"}} 2.0',
        f'trtfarm_spool_bytes{{hostname="{worker.hostname}"}} 300.0',
        f'trtfarm_scratch_free_bytes{{hostname="{worker.hostname}"}} 4000.0',
        "trtfarm_database_up 1.0",
        "trtfarm_leases_reaped_total 0.0",
        'trtfarm_submissions_total{disposition="created"} 2.0',
        'trtfarm_request_seconds_count{method="POST",route="/v1/jobs",status="201"} 2.0',
    ):
        assert expected in lines
    counted = [line for line in lines if line.startswith("trtfarm_request_seconds_count")]
    assert any('status="404"' in line and "/nothing" not in line for line in counted)
    assert not any(DIGEST in line or "0192" in line for line in counted)  # routes, not addresses


# --- without the database ---


def requests() -> list[tuple[str, str, dict[str, Any]]]:
    """One for each route that reads or writes data."""
    bodies = {
        "/v1/uploads": {"json": {"digest": DIGEST, "size_bytes": 1}},
        "/v1/jobs": {"json": {"model": DIGEST, "target": {"gpu": "cc-8.9"}}},
        "/v1/jobs/cancel": {"json": {}},
        "/v1/jobs/{job_id}/prioritize": {"json": {"priority": 1}},
        "/v1/campaigns": {
            "json": {"models": [{"model": DIGEST}], "targets": [{"gpu": "cc-8.9"}], "configs": [{}]}
        },
        "/v1/names/{reference}": {"json": {"model": DIGEST}},
        "/v1/orders": {"json": {"name": "detector", "model": "detector:prod"}},
        "/v1/plans/resolve": {
            "json": {"model": DIGEST, "machine": {"gpu": "h200", "runtime": "tensorrt-10.16.1"}}
        },
        "/v1/timing-caches": {"json": {"digest": DIGEST, "gpu": "h200"}},
        "/v1/timing-caches/{key}/rollback": {"params": {"revision": 1}},
    }
    found = []
    for method, path in routes():
        if path in OPEN | {"/metrics", "/openapi.json", "/docs"}:
            continue
        address = (
            path.replace("{digest}", DIGEST)
            .replace("{model}", DIGEST)
            .replace("{reference}", "detector:prod")
            .replace("{job_id}", "x")
            .replace("{upload_id}", "x")
            .replace("{key}", "ab" * 32)
        )
        options = (
            bodies.get(path, {})
            if method in {"POST", "PUT"}
            else {"content": b"x"}
            if method == "PATCH"
            else {}
        )
        found.append((method, address, options))
    return found


def test_the_database_is_away(far: tuple[World, Line]) -> None:
    """503 on every route, with a code and when to come again; then all is as before."""
    world, line = far
    world.register_workers()
    request = world.request()
    upload = world.announce(onnx_model()).json()["upload_id"]
    world.http.get("/v1/jobs")
    line.cut()
    for method, path, options in (*requests(), ("POST", "/v1/jobs", {"json": request})):
        answer = world.http.request(method, path, **options)
        assert answer.status_code == 503, (method, path, answer.text)
        assert int(answer.headers["retry-after"]) > 0
        if method != "HEAD":
            problem(answer, 503, "DB_UNAVAILABLE")
    problem(world.send(upload, b"x"), 503, "DB_UNAVAILABLE")
    problem(world.http.get("/readyz"), 503, "DB_UNAVAILABLE")
    assert world.http.get("/healthz").status_code == 200
    metrics = world.http.get("/metrics")
    assert metrics.status_code == 200
    assert "trtfarm_database_up 0.0" in metrics.text
    line.mend()
    assert world.http.get("/readyz").status_code == 200
    assert world.post_job(request).status_code == 201
    assert world.get(f"/v1/uploads/{upload}")["offset"] == 0


def test_the_database_goes_away_in_the_middle_of_an_upload(far: tuple[World, Line]) -> None:
    """What was sent is safe; the last, empty piece is sent again."""
    world, line = far
    data = onnx_model()
    upload_id = world.announce(data).json()["upload_id"]

    def chunks() -> Iterator[bytes]:
        yield data[:50]
        while upload_id not in world.staged():
            time.sleep(0.01)
        line.cut()
        yield data[50:]

    problem(world.http.patch(f"/v1/uploads/{upload_id}", content=chunks()), 503, "DB_UNAVAILABLE")
    line.mend()
    assert world.get(f"/v1/uploads/{upload_id}")["offset"] == len(data)
    assert world.send(upload_id, b"", len(data)).json()["complete"]


def test_connections_that_the_database_has_closed(world: World) -> None:
    """As after its restart: nobody notices. A connection is trusted for a second: no restart is as fast."""
    for _ in range(2):
        world.http.get("/v1/jobs")
        with world.farm.database.engine.begin() as connection:
            connection.execute(
                text(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE datname = current_database() AND pid <> pg_backend_pid()"
                )
            )
        time.sleep(1.1)
        assert world.http.get("/v1/jobs").status_code == 200
