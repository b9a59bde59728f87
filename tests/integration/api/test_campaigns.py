"""Campaigns over HTTP: declared, declared again, filled, cancelled; and coverage."""

from __future__ import annotations

import threading
from typing import Any
from uuid import uuid4

from tests.integration.api.world import RTX, World, onnx_model, problem

GPUS = ("cc-7.5", "cc-8.9")


def declaration(world: World, models: int = 2, **more: Any) -> dict[str, Any]:
    """As many new models for two capabilities, under a name of its own."""
    return {
        "name": f"c-{uuid4().hex[:8]}",
        "models": [{"model": world.model(), "name": f"m{number}"} for number in range(models)],
        "targets": [{"gpu": gpu, "runtime": RTX} for gpu in GPUS],
        **more,
    }


def submit(world: World, request: dict[str, Any], status: int = 201) -> dict[str, Any]:
    response = world.http.post("/v1/campaigns", json=request)
    assert response.status_code == status, response.text
    document: dict[str, Any] = response.json()
    return document


def fill(world: World, name: str, **params: Any) -> dict[str, Any]:
    response = world.http.post(f"/v1/campaigns/{name}/fill", params=params)
    assert response.status_code == 200, response.text
    document: dict[str, Any] = response.json()
    return document


def states(campaign: dict[str, Any]) -> list[str]:
    return [cell["state"] for cell in campaign["cells"]]


def did(campaign: dict[str, Any]) -> tuple[int, int, int]:
    changes = campaign["changes"]
    return changes["created"], changes["joined"], changes["reused"]


def build(world: World, cell: dict[str, Any], plan: bytes | None = None) -> bytes:
    plan = plan or uuid4().bytes
    world.finish(world.claim(cell["job_id"]), plan)
    return plan


def refuse(world: World, cell: dict[str, Any], code: str = "UNSUPPORTED_ON_TARGET") -> None:
    world.fail(world.claim(cell["job_id"]), code=code)


def test_every_cell_becomes_a_job(world: World) -> None:
    request = declaration(world, priority=7, timeout_seconds=60)
    campaign = submit(world, request)
    assert [(cell["name"], cell["target"]["gpu"]) for cell in campaign["cells"]] == [
        ("m0", "cc-7.5"), ("m0", "cc-8.9"), ("m1", "cc-7.5"), ("m1", "cc-8.9"),
    ]  # fmt: skip
    assert states(campaign) == ["queued"] * 4
    assert did(campaign) == (4, 0, 0)
    assert campaign["changes"]["added"] == 4
    assert campaign["coverage"]["live"] == 4
    jobs = [world.get(f"/v1/jobs/{cell['job_id']}") for cell in campaign["cells"]]
    assert {(job["priority"], job["timeout_seconds"]) for job in jobs} == {(7, 60)}
    assert [job["build_key"] for job in jobs] == [cell["build_key"] for cell in campaign["cells"]]
    ids = [job["job_id"] for job in jobs]
    assert ids == sorted(ids), "they take their turns in the order declared"
    for by in (campaign["campaign_id"], request["name"]):
        again = world.get(f"/v1/campaigns/{by}")
        assert again["cells"] == campaign["cells"]
        assert again["changes"] is None


def test_declared_again_it_builds_only_what_is_missing(world: World) -> None:
    request = declaration(world)
    first = submit(world, request)
    build(world, first["cells"][0])
    refuse(world, first["cells"][1])
    second = submit(world, request, 200)
    assert second["campaign_id"] == first["campaign_id"]
    assert did(second) == (0, 2, 1)
    assert states(second) == ["succeeded", "refused", "queued", "queued"]
    assert second["cells"][1]["error"]["code"] == "UNSUPPORTED_ON_TARGET"
    assert (second["changes"]["added"], second["changes"]["removed"]) == (0, 0)
    assert [cell["job_id"] for cell in second["cells"]] == [cell["job_id"] for cell in first["cells"]]


def test_without_a_name_the_declaration_is_the_name(world: World) -> None:
    request = declaration(world)
    del request["name"]
    first = submit(world, request)
    assert submit(world, {**request, "priority": 3}, 200)["campaign_id"] == first["campaign_id"]
    other = submit(world, {**request, "targets": request["targets"][:1]}, 200)
    assert other["campaign_id"] != first["campaign_id"]


def test_a_changed_declaration_changes_the_cells(world: World) -> None:
    request = declaration(world)
    first = submit(world, request)
    changed = {**request, "models": [request["models"][1], {"model": world.model(), "name": "new"}]}
    second = submit(world, changed)
    assert second["campaign_id"] == first["campaign_id"]
    assert did(second) == (2, 2, 0)
    assert (second["changes"]["added"], second["changes"]["removed"]) == (2, 2)
    assert {cell["name"] for cell in second["cells"]} == {"m1", "new"}
    gone = world.get(f"/v1/jobs/{first['cells'][0]['job_id']}")
    assert gone["state"] == "queued", "a build that was submitted goes on"


def test_gpus_that_share_a_plan_are_one_cell(world: World) -> None:
    targets = [{"gpu": gpu, "runtime": RTX} for gpu in ("rtx-4090", "NVIDIA L4", "cc-8.9", "t4")]
    campaign = submit(world, declaration(world, models=1, targets=targets))
    assert [(cell["target"]["gpu"], cell["gpus"]) for cell in campaign["cells"]] == [
        ("cc-8.9", ["rtx-4090", "NVIDIA L4", "cc-8.9"]), ("cc-7.5", ["t4"]),
    ]  # fmt: skip


def test_several_configs(world: World) -> None:
    configs = [{"name": "plain"}, {"name": "exact", "config": {"tf32": False}}]
    campaign = submit(world, declaration(world, models=1, configs=configs))
    assert [(cell["config"], cell["target"]["gpu"]) for cell in campaign["cells"]] == [
        ("plain", "cc-7.5"), ("plain", "cc-8.9"), ("exact", "cc-7.5"), ("exact", "cc-8.9"),
    ]  # fmt: skip
    assert len({cell["build_key"] for cell in campaign["cells"]}) == 4


def test_a_cell_that_the_farm_refuses_is_a_cell_with_an_error(world: World) -> None:
    request = declaration(world, models=1)
    request["models"].append({"model": world.model(onnx_model(shape=("n", 4))), "name": "dynamic"})
    campaign = submit(world, request)
    assert states(campaign) == ["queued", "queued", "refused", "refused"]
    assert campaign["cells"][2]["error"]["code"] == "PROFILE_REQUIRED"
    assert campaign["cells"][2]["job_id"] is None
    profile = {"x": {"min": [1, 4], "opt": [2, 4], "max": [3, 4]}}
    request["models"][1]["profiles"] = [profile]
    assert states(submit(world, request)) == ["queued"] * 4


def test_if_no_cell_can_be_built_the_declaration_is_refused(world: World) -> None:
    config = {"name": "half", "config": {"int8": True}}
    request = declaration(world, models=1, configs=[config])
    problem(world.http.post("/v1/campaigns", json=request), 422, "OPTION_UNSUPPORTED")
    problem(world.http.get(f"/v1/campaigns/{request['name']}"), 404, "NOT_FOUND")


def test_a_target_that_nobody_serves_needs_to_be_asked_for(world: World) -> None:
    request = declaration(world, models=1)
    request["targets"].append({"gpu": "cc-12.0", "runtime": RTX})
    document = problem(world.http.post("/v1/campaigns", json=request), 422, "TARGET_UNAVAILABLE")
    assert "cc-12.0" in document["detail"]
    assert "cc-8.9" in document["hint"]
    assert "--wait-for-worker" in document["hint"]
    campaign = submit(world, {**request, "wait_for_worker": True})
    assert states(campaign) == ["queued"] * 3


def test_what_is_wrong_with_a_declaration(world: World) -> None:
    request = declaration(world, models=1)
    (model,) = request["models"]
    problem(
        world.http.post("/v1/campaigns", json={**request, "models": [model, model]}), 422, "VALIDATION_ERROR"
    )
    unknown = {**model, "model": "sha256:" + "0" * 64}
    problem(world.http.post("/v1/campaigns", json={**request, "models": [unknown]}), 404, "MODEL_NOT_FOUND")
    problem(world.http.post("/v1/campaigns", json={**request, "name": str(uuid4())}), 422, "VALIDATION_ERROR")
    problem(world.http.post("/v1/campaigns", json={**request, "targets": []}), 422, "VALIDATION_ERROR")


def test_fill_submits_the_holes_alone(world: World) -> None:
    request = declaration(world)
    built, refused, broken, queued = submit(world, request)["cells"]
    build(world, built)
    refuse(world, refused)
    refuse(world, broken, "BUILD_TIMEOUT")
    now = world.get(f"/v1/campaigns/{request['name']}")
    assert states(now) == ["succeeded", "refused", "failed", "queued"]
    assert now["coverage"] == {
        "wanted": 4, "covered": 1, "refused": 1, "live": 1, "holes": 1, "complete": False,
    }  # fmt: skip
    filled = fill(world, request["name"])
    assert did(filled) == (1, 1, 1)
    assert states(filled) == ["succeeded", "refused", "queued", "queued"]
    assert filled["cells"][2]["job_id"] != broken["job_id"]
    again = fill(world, request["name"], retry_failed=True)
    assert did(again) == (1, 2, 1)
    assert again["cells"][1]["state"] == "queued"
    assert queued["job_id"] == again["cells"][3]["job_id"]


def test_a_lost_plan_is_noticed_and_built_again(world: World) -> None:
    request = declaration(world, models=1)
    first, second = submit(world, request)["cells"]
    plan = build(world, first)
    build(world, second)
    name = request["name"]
    assert world.get(f"/v1/campaigns/{name}?check=true")["coverage"]["complete"]
    digest = world.get(f"/v1/campaigns/{name}")["cells"][0]["plan"]["digest"]
    world.blob(digest).unlink()
    assert states(world.get(f"/v1/campaigns/{name}?check=true")) == ["lost", "succeeded"]
    assert states(world.get(f"/v1/campaigns/{name}")) == ["lost", "succeeded"], "known since the look"
    filled = fill(world, name)
    assert did(filled) == (1, 0, 1)
    build(world, filled["cells"][0], plan)
    assert world.get(f"/v1/campaigns/{name}?check=true")["coverage"]["complete"]


def test_cancel_ends_what_is_the_campaigns_own(world: World) -> None:
    request = declaration(world)
    cells = submit(world, request)["cells"]
    running = world.claim(cells[1]["job_id"])
    shared = world.post_job({"model": cells[0]["model"], "target": {"gpu": "cc-7.5", "runtime": RTX}})
    assert shared.json()["disposition"] == "joined"
    response = world.http.post(f"/v1/campaigns/{request['name']}/cancel")
    assert response.status_code == 200, response.text
    document = response.json()
    assert (document["ended"], document["asked"], document["shared"]) == (2, 1, 1)
    assert states(document["campaign"]) == ["queued", "running", "cancelled", "cancelled"]
    assert document["campaign"]["cancelled_at"] is not None
    assert world.renew(running, "building")
    world.finish(running, b"too late")
    filled = fill(world, request["name"])
    assert did(filled) == (2, 1, 1)
    assert filled["cancelled_at"] is None


def test_a_higher_priority_raises_what_waits(world: World) -> None:
    request = declaration(world, models=1)
    first = submit(world, request)
    running = world.claim(first["cells"][0]["job_id"])
    submit(world, {**request, "priority": 50}, 200)
    jobs = [world.get(f"/v1/jobs/{cell['job_id']}") for cell in first["cells"]]
    assert [job["priority"] for job in jobs] == [0, 50]
    submit(world, {**request, "priority": -50}, 200)
    assert world.get(f"/v1/jobs/{first['cells'][1]['job_id']}")["priority"] == 50
    world.finish(running, b"plan")


def test_what_others_build_counts(world: World) -> None:
    """A cell points at no job: whoever builds its key fills it."""
    request = declaration(world, models=1)
    cells = submit(world, request)["cells"]
    world.http.post(f"/v1/campaigns/{request['name']}/cancel")
    built = world.built(b"theirs", {"model": cells[0]["model"], "target": {"gpu": "cc-7.5", "runtime": RTX}})
    now = world.get(f"/v1/campaigns/{request['name']}")
    assert states(now) == ["succeeded", "cancelled"]
    assert now["cells"][0]["plan"]["digest"] == built.digest


def test_the_same_campaign_from_many_clients_at_once(world: World) -> None:
    """Each build has one job, and nobody waits for ever."""
    request = declaration(world, models=3)
    other = {**request, "name": request["name"] + "-other", "targets": request["targets"][::-1]}
    answers: list[dict[str, Any]] = []

    def post(body: dict[str, Any]) -> None:
        response = world.http.post("/v1/campaigns", json=body)
        assert response.is_success, response.text
        answers.append(response.json())

    threads = [threading.Thread(target=post, args=(body,)) for body in (request, other) * 4]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 8
    assert sum(answer["changes"]["created"] for answer in answers) == 6
    assert len({cell["job_id"] for answer in answers for cell in answer["cells"]}) == 6
    assert {answer["name"] for answer in answers} == {request["name"], other["name"]}
    assert len({answer["campaign_id"] for answer in answers}) == 2


def test_the_list_has_figures_and_pages(world: World) -> None:
    names = [submit(world, declaration(world, models=1))["name"] for _ in range(3)]
    page = world.get("/v1/campaigns?limit=2")
    assert [each["name"] for each in page["campaigns"]] == names[:0:-1]
    assert page["campaigns"][0]["coverage"]["live"] == 2
    assert page["campaigns"][0]["targets"] == 2
    following = world.get(f"/v1/campaigns?limit=1&cursor={page['next']}")
    assert following["campaigns"][0]["name"] == names[0]


def test_coverage_by_campaign_and_by_model(world: World) -> None:
    request = declaration(world)
    first = submit(world, request)
    build(world, first["cells"][0])
    shared = {**declaration(world, models=0), "models": request["models"][:1]}
    submit(world, shared, 200)
    view = world.get(f"/v1/coverage?campaign={request['name']}")
    assert view["coverage"]["wanted"] == 4
    assert view["coverage"]["covered"] == 1
    assert [each["name"] for each in view["campaigns"]] == [request["name"]]
    assert [(each["names"], each["coverage"]["covered"]) for each in view["models"]] == [
        (["m0"], 1), (["m1"], 0),
    ]  # fmt: skip
    digest = request["models"][0]["model"]
    view = world.get(f"/v1/coverage?model={digest}")
    assert view["coverage"]["wanted"] == 2, "two campaigns want the same cells"
    assert [each["name"] for each in view["campaigns"]] == [shared["name"], request["name"]]
    (model,) = view["models"]
    assert [cell["state"] for cell in model["cells"]] == ["succeeded", "queued"]
    world.blob(model["cells"][0]["plan"]["digest"]).unlink()
    assert world.get(f"/v1/coverage?model={digest}&check=true")["coverage"]["covered"] == 0
    problem(world.http.get("/v1/coverage?campaign=nothing"), 404, "NOT_FOUND")


def test_a_name_is_looked_up_each_time(world: World) -> None:
    name = f"detector-{uuid4().hex[:8]}"
    first, second = world.model(), world.model()
    request = declaration(world, models=0)
    request["models"] = [{"model": f"{name}:prod"}]
    problem(world.http.post("/v1/campaigns", json=request), 404, "NAME_NOT_FOUND")
    assert world.http.put(f"/v1/names/{name}:prod", json={"model": first}).is_success
    campaign = submit(world, request)
    assert {(cell["name"], cell["model"]) for cell in campaign["cells"]} == {(f"{name}:prod", first)}
    assert world.http.put(f"/v1/names/{name}:prod", json={"model": second}).is_success
    moved = submit(world, request)
    assert {cell["model"] for cell in moved["cells"]} == {second}
    assert (moved["changes"]["added"], moved["changes"]["removed"]) == (2, 2)
    assert world.get(f"/v1/coverage?model={name}:prod")["coverage"]["live"] == 2
