"""What cannot be built is refused before there is a job, with a code that a program can rely on."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import text

from tests.integration.api.world import ENTERPRISE, World, client, onnx_model, problem, serving
from trtfarm_api.farm import Farm

SHAPES = {"min": [1, 4], "opt": [8, 4], "max": [32, 4]}


@pytest.fixture(scope="module")
def model(world: World) -> str:
    return world.model()


@pytest.fixture(scope="module")
def dynamic(world: World) -> str:
    return world.model(onnx_model(shape=("batch", 4)))


@pytest.fixture(autouse=True)
def no_job(world: World) -> Any:
    before = world.get("/v1/jobs?limit=500")["jobs"]
    yield
    assert world.get("/v1/jobs?limit=500")["jobs"] == before


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"modle": "x"}, "UNKNOWN_FIELD"),
        ({"target": {"gpu": "cc-8.9", "driver": "570"}}, "UNKNOWN_FIELD"),
        ({"config": {"workspace": 4096}}, "UNKNOWN_FIELD"),
        ({"config": {"__class__": 1}}, "UNKNOWN_FIELD"),
        ({"config": []}, "VALIDATION_ERROR"),
        ({"config": {"fp16": "perhaps"}}, "VALIDATION_ERROR"),
        ({"config": {"memory_pool_limits": {"workspace": -1}}}, "VALIDATION_ERROR"),
        ({"config": {"memory_pool_limits": {"workspace": 2**64}}}, "VALIDATION_ERROR"),
        ({"config": {"memory_pool_limits": {"heap": 1}}}, "VALIDATION_ERROR"),
        ({"config": {"fp8": True, "int8": True}}, "VALIDATION_ERROR"),
        ({"config": {"exclude_lean_runtime": True}}, "VALIDATION_ERROR"),
        ({"config": {"input_io_formats": ["fp16:nope"]}}, "VALIDATION_ERROR"),
        ({"priority": "high"}, "VALIDATION_ERROR"),
        ({"priority": 101}, "VALIDATION_ERROR"),
        ({"priority": 10**400}, "VALIDATION_ERROR"),
        ({"timeout_seconds": 0}, "VALIDATION_ERROR"),
        ({"timeout_seconds": 10**9}, "VALIDATION_ERROR"),
        ({"kind": "benchmark"}, "VALIDATION_ERROR"),
        ({"model": None}, "VALIDATION_ERROR"),
        ({"model": "sha256:12"}, "INVALID_DIGEST"),
        ({"model": "ResNet"}, "INVALID_NAME"),
        ({"target": None}, "VALIDATION_ERROR"),
        ({"target": {"gpu": ""}}, "VALIDATION_ERROR"),
        ({"target": {"gpu": "x" * 81}}, "VALIDATION_ERROR"),
        ({"target": {"gpu": "rtx-9999"}}, "UNKNOWN_GPU"),
        ({"target": {"gpu": "💥"}}, "UNKNOWN_GPU"),
        ({"target": {"gpu": "cc-3.5"}}, "UNKNOWN_GPU"),
        ({"target": {"gpu": "h100"}}, "TARGET_UNAVAILABLE"),
        ({"target": {"gpu": "h100", "runtime": "tensorrt"}}, "UNKNOWN_GPU"),
        ({"target": {"gpu": "cc-8.9", "runtime": "onnxruntime"}}, "UNKNOWN_RUNTIME"),
        ({"target": {"gpu": "cc-8.9", "runtime": "tensorrt-rtx-1.99.0"}}, "UNKNOWN_RUNTIME"),
        ({"target": {"gpu": "cc-8.9", "runtime": "tensorrt-rtx-"}}, "UNKNOWN_RUNTIME"),
        ({"target": {"gpu": "cc-8.6"}}, "TARGET_UNAVAILABLE"),
        ({"target": {"gpu": "h100-pcie"}}, "TARGET_UNAVAILABLE"),
        ({"target": {"gpu": "cc-8.9", "platform": "windows-x86_64"}}, "TARGET_UNAVAILABLE"),
        ({"config": {"bf16": True}}, "OPTION_UNSUPPORTED"),
        ({"config": {"sparsity": "force"}}, "OPTION_UNSUPPORTED"),
        ({"profiles": [{"x": {"min": [9, 4], "opt": [8, 4], "max": [32, 4]}}]}, "PROFILE_INVALID"),
        ({"profiles": [{"x": {"min": [1, 4], "opt": [33, 4], "max": [32, 4]}}]}, "PROFILE_INVALID"),
        ({"profiles": [{"x": {"min": [1], "opt": [1, 4], "max": [1, 4]}}]}, "PROFILE_INVALID"),
        ({"profiles": [{"x": {"min": [0, 4], "opt": [1, 4], "max": [1, 4]}}]}, "VALIDATION_ERROR"),
        ({"profiles": [{"x": {"min": [1, 4], "opt": [1, 4], "max": [1, 2**31]}}]}, "VALIDATION_ERROR"),
        ({"profiles": [{"x": {"min": [1, 4], "opt": [1, 4]}}]}, "VALIDATION_ERROR"),
        ({"profiles": {"x": SHAPES}}, "VALIDATION_ERROR"),
    ],
)
def test_requests_that_are_refused(world: World, model: str, change: dict[str, Any], code: str) -> None:
    problem(world.post_job(world.request(model) | change), 422, code)


@pytest.mark.parametrize(
    ("profiles", "code"),
    [
        ([], "PROFILE_REQUIRED"),
        ([{}], "PROFILE_REQUIRED"),
        ([{"x": SHAPES}, {}], "PROFILE_REQUIRED"),
        ([{"x": SHAPES, "z": SHAPES}], "PROFILE_INVALID"),
        ([{"x": {"min": [1, 4, 1], "opt": [1, 4, 1], "max": [1, 4, 1]}}], "PROFILE_INVALID"),
        ([{"x": {"min": [1, 5], "opt": [1, 5], "max": [1, 5]}}], "PROFILE_INVALID"),
        ([{"x": SHAPES}] * 65, "PROFILE_INVALID"),
    ],
)
def test_profiles_that_do_not_fit_the_model(world: World, dynamic: str, profiles: Any, code: str) -> None:
    document = problem(world.post_job(world.request(dynamic, profiles=profiles)), 422, code)
    if code == "PROFILE_REQUIRED":
        assert "--optShapes=x:1x4" in document["hint"]


def test_hints_name_what_is_near(world: World, model: str) -> None:
    def refused(gpu: str, **more: str) -> dict[str, Any]:
        answer = world.post_job(world.request(model) | {"target": {"gpu": gpu, **more}})
        document: dict[str, Any] = answer.json()
        return document

    assert "rtx-4090" in refused("rtx-4099")["hint"]
    assert "h200" in refused("h100-pcie")["hint"]
    assert "cc-8.9" in refused("cc-8.6")["hint"]
    assert ENTERPRISE in refused("h200", runtime="tensorrt-8.6.1")["hint"]


def test_an_option_that_rtx_cannot_honour(world: World, model: str) -> None:
    document = problem(world.post_job(world.request(model, config={"bf16": True})), 422, "OPTION_UNSUPPORTED")
    assert "--bf16" in document["detail"]
    assert document["hint"]


def test_a_model_that_was_not_uploaded(world: World) -> None:
    problem(world.post_job(world.request("sha256:" + "0" * 64)), 404, "MODEL_NOT_FOUND")


def test_a_farm_that_no_worker_has_joined(another_farm: Farm) -> None:
    """Its database is the module's, so the workers are taken away for a moment."""
    with serving(another_farm) as url, client(url) as http:
        world = World(another_farm, url, http)
        model = world.model()
        with another_farm.database.engine.begin() as connection:
            connection.execute(text("CREATE TABLE kept AS SELECT * FROM workers"))
            connection.execute(text("DELETE FROM workers"))
        try:
            document = problem(world.post_job(world.request(model)), 422, "TARGET_UNAVAILABLE")
            assert document["hint"] == "Start one: trtfarm worker"
        finally:
            with another_farm.database.engine.begin() as connection:
                connection.execute(text("INSERT INTO workers SELECT * FROM kept"))
                connection.execute(text("DROP TABLE kept"))
