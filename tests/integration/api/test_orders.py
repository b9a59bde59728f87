"""Standing orders: what they submit when names move, the fleet changes or plans are lost; their report."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import delete, update
from typer.testing import CliRunner
from uuid_utils import uuid7

from tests.integration.api.world import ENTERPRISE, RTX, World, problem
from tests.integration.test_benchmark_jobs import DEVICE, measured
from tests.together import together
from trtfarm.cli.main import app
from trtfarm.contract.digest import Digest
from trtfarm.contract.leases import WorkerInfo
from trtfarm_api.services.orders import OrderService
from trtfarm_api.services.submissions import SubmissionService
from trtfarm_db.models import Job, Worker
from trtfarm_db.repositories.workers import WorkerRepository

NEW = "tensorrt-10.17.0"
FLEET = [(RTX, "cc-7.5"), (RTX, "cc-8.9"), (ENTERPRISE, "h200"), (ENTERPRISE, "l4")]


@pytest.fixture(autouse=True)
def fleet(world: World) -> Iterator[None]:
    """The fleet of the farm under test, again after each test; and no order."""
    yield
    for order in world.get("/v1/orders")["orders"]:
        world.http.delete(f"/v1/orders/{order['name']}")
    world.http.post("/v1/jobs/cancel", json={})
    with world.farm.database.transaction() as connection:
        connection.execute(delete(Worker).where(Worker.runtime == NEW))


def declare(world: World, model: str, status: int = 201, **more: Any) -> dict[str, Any]:
    request = {"name": f"o-{uuid4().hex[:8]}", "model": model, **more}
    response = world.http.post("/v1/orders", json=request)
    assert response.status_code == status, response.text
    document: dict[str, Any] = response.json()
    return document


def named(world: World, name: str) -> str:
    model = world.model()
    assert world.http.put(f"/v1/names/{name}", json={"model": model}).is_success
    return model


def service(world: World) -> OrderService:
    return OrderService(world.farm, SubmissionService(world.farm))


def reconcile(world: World, *, check: bool = False) -> int:
    return service(world).reconcile(check=check)


def join(world: World, runtime: str, *gpus: str) -> None:
    info = WorkerInfo(
        worker_id=str(uuid7()), hostname="new", runtime=runtime, platform="linux-x86_64", gpus=gpus, slots=1
    )
    with world.farm.database.transaction() as connection:
        WorkerRepository(connection).register(info)


def cells(world: World, order: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    found = world.get(f"/v1/orders/{order['name']}")["cells"]
    return {(cell["target"]["runtime"], cell["target"]["gpu"]): cell for cell in found}


def build(world: World, cell: dict[str, Any]) -> bytes:
    plan = uuid4().bytes
    world.finish(world.claim(cell["job_id"]), plan)
    return plan


def measure(world: World, cell: dict[str, Any], mean_ms: float) -> None:
    [bench] = cell["benchmarks"]
    claim = world.claim(bench["job_id"])
    result = measured()
    metric = result.measurement.gpu_compute.model_copy(update={"mean": mean_ms})
    measurement = result.measurement.model_copy(update={"gpu_compute": metric})
    device = DEVICE.model_copy(update={"gpu": bench["gpu"]})
    with world.leases() as leases:
        leases.finish_benchmark(
            claim, result.model_copy(update={"measurement": measurement, "device": device})
        )


def test_the_whole_fleet_is_wanted(world: World) -> None:
    order = declare(world, world.model())
    found = cells(world, order)
    assert sorted(found) == sorted(FLEET)
    assert {cell["state"] for cell in found.values()} == {"queued"}
    job = world.get(f"/v1/jobs/{found[ENTERPRISE, 'h200']['job_id']}")
    assert (job["priority"], job["state"]) == (-10, "queued")
    assert reconcile(world) == 0
    [listed] = world.get("/v1/orders")["orders"]
    assert (listed["name"], listed["cells"], listed["coverage"]["live"]) == (order["name"], None, 4)


@pytest.mark.parametrize(
    ("only", "wanted"),
    [
        ({"gpus": ["rtx-4090"]}, [(RTX, "cc-8.9")]),
        ({"gpus": ["NVIDIA L4"]}, [(RTX, "cc-8.9"), (ENTERPRISE, "l4")]),
        ({"gpus": ["cc-9.0", "t4"]}, [(RTX, "cc-7.5"), (ENTERPRISE, "h200")]),
        ({"runtimes": ["tensorrt"]}, [(ENTERPRISE, "h200"), (ENTERPRISE, "l4")]),
        ({"runtimes": ["tensorrt-10.16"], "gpus": ["h200"]}, [(ENTERPRISE, "h200")]),
    ],
)
def test_a_part_of_the_fleet(world: World, only: dict[str, Any], wanted: list[tuple[str, str]]) -> None:
    assert sorted(cells(world, declare(world, world.model(), **only))) == sorted(wanted)


def test_what_fits_nothing_is_told(world: World) -> None:
    order = declare(world, world.model(), gpus=["rtx-5090"])
    assert (order["cells"], order["problem"]["code"]) == ([], "TARGET_UNAVAILABLE")
    name = f"n{uuid4().hex[:8]}:prod"
    order = declare(world, name)
    assert (order["digest"], order["problem"]["code"]) == (None, "NAME_NOT_FOUND")
    named(world, name)
    assert reconcile(world) == 4
    assert world.get(f"/v1/orders/{order['name']}")["problem"] is None
    problem(
        world.http.post("/v1/orders", json={"name": "x", "model": name, "gpus": ["?"]}), 422, "UNKNOWN_GPU"
    )
    problem(world.http.get("/v1/orders/none"), 404, "NOT_FOUND")
    problem(world.http.delete("/v1/orders/none"), 404, "NOT_FOUND")


def test_a_name_that_moves_is_followed(world: World) -> None:
    name = f"n{uuid4().hex[:8]}:prod"
    first = named(world, name)
    order = declare(world, name, gpus=["h200"])
    assert order["digest"] == first
    build(world, order["cells"][0])
    second = named(world, name)
    assert reconcile(world) == 1
    [cell] = cells(world, order).values()
    assert world.get(f"/v1/orders/{order['name']}")["digest"] == second
    assert cell["state"] == "queued"
    assert world.get(f"/v1/jobs/{cell['job_id']}")["model"] == second


def test_plans_are_measured_where_a_gpu_is(world: World) -> None:
    order = declare(world, world.model())
    for cell in order["cells"]:
        build(world, cell)
    assert reconcile(world) == 2
    found = cells(world, order)
    assert {place: cell["measured"] for place, cell in found.items()} == {
        (RTX, "cc-7.5"): "impossible",
        (RTX, "cc-8.9"): "impossible",
        (ENTERPRISE, "h200"): "queued",
        (ENTERPRISE, "l4"): "queued",
    }
    measure(world, found[ENTERPRISE, "h200"], 1.25)
    assert reconcile(world) == 0
    [done] = cells(world, order)[ENTERPRISE, "h200"]["benchmarks"]
    assert (done["state"], done["gpu"], done["gpu_compute_mean_ms"]) == ("done", "h200", 1.25)
    assert world.get(f"/v1/orders/{order['name']}")["measured"] == {"impossible": 2, "done": 1, "queued": 1}


def test_without_measurements(world: World) -> None:
    order = declare(world, world.model(), gpus=["h200"], benchmark=False)
    build(world, order["cells"][0])
    assert reconcile(world) == 0
    assert cells(world, order)[ENTERPRISE, "h200"]["measured"] == "off"


def test_a_lost_plan_is_built_again(world: World) -> None:
    order = declare(world, world.model(), gpus=["h200"], benchmark=False)
    plan = build(world, order["cells"][0])
    assert reconcile(world, check=True) == 0
    world.blob(Digest.of_bytes(plan)).unlink()
    assert reconcile(world, check=True) == 1
    [cell] = cells(world, order).values()
    assert (cell["state"], cell["job_id"] != order["cells"][0]["job_id"]) == ("queued", True)


def test_what_failed_waits_and_what_was_refused_or_cancelled_stays(world: World) -> None:
    order = declare(world, world.model())
    found = cells(world, order)
    world.fail(world.claim(found[ENTERPRISE, "h200"]["job_id"]))
    world.fail(world.claim(found[RTX, "cc-7.5"]["job_id"]), code="UNSUPPORTED_ON_TARGET")
    world.http.post(f"/v1/jobs/{found[ENTERPRISE, 'l4']['job_id']}/cancel")
    assert reconcile(world) == 0
    found = cells(world, order)
    assert [found[place]["state"] for place in FLEET] == ["refused", "queued", "failed", "cancelled"]
    assert found[ENTERPRISE, "h200"]["error"]["code"] == "BUILD_FAILED"
    long_ago = datetime.now(UTC) - timedelta(hours=2)
    with world.farm.database.transaction() as connection:
        ended = update(Job).where(Job.finished_at.is_not(None)).values(finished_at=long_ago)
        connection.execute(ended)
    assert reconcile(world) == 1
    assert cells(world, order)[ENTERPRISE, "h200"]["state"] == "queued"


def test_options_that_a_runtime_refuses_are_refused_there_alone(world: World) -> None:
    configs = [{"name": "tuned", "config": {"tactic_sources": {"CUDNN": False}}}]
    order = declare(world, world.model(), configs=configs)
    states = {place: cell["state"] for place, cell in cells(world, order).items()}
    assert (states[RTX, "cc-8.9"], states[ENTERPRISE, "h200"]) == ("refused", "queued")


def test_many_reconcilers_submit_once(world: World) -> None:
    order = declare(world, f"n{uuid4().hex[:8]}:prod")
    named(world, order["model"])
    made = together([lambda: reconcile(world)] * 8)
    assert sum(made) == 4
    assert len(world.get("/v1/jobs?state=queued")["jobs"]) == 4


def test_a_new_version_beside_the_old_one(world: World) -> None:
    order = declare(world, world.model(), runtimes=["tensorrt"])
    for cell in order["cells"]:
        build(world, cell)
    reconcile(world)
    for cell in cells(world, order).values():
        measure(world, cell, 2.0)
    first = world.get(f"/v1/orders/{order['name']}/report")
    assert first["counts"] == {"new": 2}
    join(world, NEW, "h200", "l4", "a100-pcie-80gb")
    assert reconcile(world) == 3
    assert world.get(f"/v1/orders/{order['name']}/report")["counts"] == {"under way": 3}
    found = cells(world, order)
    assert len(found) == 5
    build(world, found[NEW, "h200"])
    world.fail(world.claim(found[NEW, "l4"]["job_id"]))
    build(world, found[NEW, "a100-pcie-80gb"])
    reconcile(world)
    before = world.get(f"/v1/orders/{order['name']}/report")
    assert before["counts"] == {"new": 1, "built": 1, "failed": 1}
    measure(world, cells(world, order)[NEW, "h200"], 1.5)
    report = world.get(f"/v1/orders/{order['name']}/report")
    rows = {row["gpu"]: row for row in report["rows"]}
    assert (rows["h200"]["verdict"], rows["h200"]["change_percent"]) == ("faster", -25.0)
    assert (rows["h200"]["before"], rows["h200"]["target"]["runtime"]) == (ENTERPRISE, NEW)
    assert (rows["l4"]["verdict"], rows["l4"]["error"]["code"]) == ("failed", "BUILD_FAILED")
    assert rows["a100-pcie-80gb"]["verdict"] == "new"
    old = world.get(f"/v1/orders/{order['name']}/report?runtime={ENTERPRISE}")
    assert old["counts"] == {"new": 2}
    assert {cell["plan"] is not None for place, cell in found.items() if place[0] == ENTERPRISE} == {True}
    said = CliRunner().invoke(
        app, ["order", "report", order["name"]], env={"TRTFARM_URL": world.url, "COLUMNS": "400"}
    )
    assert said.exit_code == 1  # a build failed
    assert "2.000 ms → 1.500 ms (-25.0 %)" in said.stdout


def test_declared_again_and_deleted(world: World) -> None:
    model = world.model()
    order = declare(world, model, gpus=["h200"])
    again = declare(world, model, 200, name=order["name"], gpus=["l4"])
    assert again["order_id"] == order["order_id"]
    assert sorted(cells(world, again)) == [(ENTERPRISE, "l4"), (RTX, "cc-8.9")]
    job = again["cells"][0]["job_id"]
    deleted = world.http.delete(f"/v1/orders/{order['name']}")
    assert (deleted.status_code, deleted.json()) == (
        200,
        {"name": order["name"], "ended": 3, "asked": 0, "shared": 0},
    )
    assert world.get("/v1/orders")["orders"] == []
    assert world.get(f"/v1/jobs/{job}")["state"] == "cancelled"


def test_the_command_line(world: World) -> None:
    name = f"n{uuid4().hex[:8]}:prod"
    named(world, name)

    def trtfarm(*arguments: str, status: int = 0) -> str:
        done = CliRunner().invoke(
            app, ["order", *arguments], env={"TRTFARM_URL": world.url, "COLUMNS": "400"}
        )
        assert done.exit_code == status, done.output
        return done.stdout

    options = ("--config", "exact=--noTF32", "--gpu", "h200")
    made = json.loads(trtfarm("create", "standing", "--model", name, *options, "--json"))
    assert [(cell["config"], cell["state"]) for cell in made["cells"]] == [("exact", "queued")]
    build(world, made["cells"][0])
    assert "1/1" in trtfarm("list")
    shown = trtfarm("show", "standing")
    assert "stands for  sha256:" in shown
    assert "to be measured" in shown
    assert "new" in trtfarm("report", "standing")
    trtfarm("delete", "standing")
    trtfarm("show", "standing", status=3)
