"""Names of models over HTTP, and wherever a model is taken."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.api.world import World, onnx_model, problem
from trtfarm.contract.digest import Digest
from trtfarm.contract.names import ModelName
from trtfarm.contract.v1 import JobRequest, TargetRequest
from trtfarm.errors import NameNotFoundError
from trtfarm.inspection.manifest import manifest_of
from trtfarm.sdk.client import FarmClient


@pytest.fixture(scope="module")
def sdk(world: World) -> Iterator[FarmClient]:
    with FarmClient(world.url) as client:
        yield client


def name(world: World, reference: str, model: str) -> None:
    answer = world.http.put(f"/v1/names/{reference}", json={"model": model})
    assert (answer.status_code, answer.json()["model"]) == (200, model), answer.text


def test_a_name_is_taken_wherever_a_model_is(world: World) -> None:
    built = world.built(b"plan of a named model")
    model = built.job["model"]
    name(world, "team/detector:prod", model)
    assert world.get("/v1/models/team/detector:prod")["digest"] == model
    assert world.http.head("/v1/models/team/detector:prod").status_code == 200
    for path, kind in (("/v1/jobs", "jobs"), ("/v1/plans", "plans")):
        assert [each["model"] for each in world.get(f"{path}?model=team/detector:prod")[kind]] == [model]
    assert world.get("/v1/benchmarks?model=team/detector:prod")["benchmarks"] == []
    answer = world.post_job({**built.request, "model": "team/detector:prod"})
    assert (answer.status_code, answer.json()["disposition"]) == (200, "reused")
    assert answer.json()["job"]["model"] == model
    for path in ("/v1/models/team/detector", "/v1/jobs?model=x:y", "/v1/plans?model=x:y", "/v1/names/x:y"):
        problem(world.http.get(path), 404, "NAME_NOT_FOUND")
    problem(world.post_job({**built.request, "model": "x:y"}), 404, "NAME_NOT_FOUND")
    for path in ("/v1/models/Bad:tag", "/v1/plans?model=Bad:tag", "/v1/names/Bad:tag"):
        problem(world.http.get(path), 422, "INVALID_NAME")
    problem(world.http.get("/v1/models/sha256:12"), 422, "INVALID_DIGEST")


def test_a_name_is_looked_up_when_the_request_arrives(world: World) -> None:
    first, second = world.model(), world.model()
    name(world, "moving:prod", first)
    request = world.request("moving:prod")
    job = world.post_job(request, "the-key").json()["job"]
    name(world, "moving:prod", second)
    assert world.get(f"/v1/jobs/{job['job_id']}")["model"] == first
    repeated = world.post_job(request, "the-key")
    assert repeated.json()["job"]["job_id"] == job["job_id"], "the same request stays the same submission"
    assert world.post_job(request).json()["job"]["model"] == second


def test_tags_by_the_client(sdk: FarmClient, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(onnx_model())
    model = sdk.upload_model(path, manifest_of(path))
    candidate, prod = ModelName("classifier:candidate"), ModelName("classifier:prod")
    assert sdk.tag(model, candidate).model == model
    assert sdk.tag(candidate, prod).model == model, "what another name stands for"
    assert [each.reference for each in sdk.names(name="classifier").names] == [candidate, prod]
    page = sdk.names(name="classifier", limit=1)
    assert [each.reference for each in sdk.names(name="classifier", cursor=page.next).names] == [prod]
    assert sdk.models(name="classifier").models[0].names == (candidate, prod)
    assert sdk.models(limit=1).models[0].digest == model
    assert sdk.submit(JobRequest(model=prod, target=TargetRequest(gpu="cc-8.9"))).job.model == model
    sdk.untag(prod)
    with pytest.raises(NameNotFoundError):
        sdk.model(prod)
    assert [(each.previous, each.model) for each in sdk.name(prod).moves or ()] == [
        (model, None),
        (None, model),
    ]


def test_models_page_to_the_end(world: World, sdk: FarmClient) -> None:
    made = [Digest(world.model()) for _ in range(5)][::-1]
    found: list[Digest] = []
    cursor = None
    while len(found) < len(made):
        page = sdk.models(limit=2, cursor=cursor)
        found += [each.digest for each in page.models]
        cursor = page.next
    assert found[: len(made)] == made


def test_a_model_that_is_not_there_gets_no_name(world: World) -> None:
    nothing = Digest.of_bytes(b"nothing")
    problem(world.http.put("/v1/names/no:thing", json={"model": nothing}), 404, "MODEL_NOT_FOUND")
    problem(world.http.put("/v1/names/no:thing", json={"model": "x:y"}), 404, "NAME_NOT_FOUND")
    problem(world.http.delete("/v1/names/no:thing"), 404, "NAME_NOT_FOUND")
