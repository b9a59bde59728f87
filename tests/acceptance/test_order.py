"""A standing order on a farm with a real worker: what it asks for is built by itself."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import services
from tests.acceptance import models
from tests.acceptance.farms import Farm, a_farm
from tests.acceptance.processes import wait_until

CAPABILITIES = ("cc-8.6", "cc-8.9")
PATIENCE_SECONDS = 180


@pytest.fixture
def farm(postgres_server: services.PostgresServer, tmp_path: Path) -> Iterator[Farm]:
    with a_farm(tmp_path, postgres_server, TRTFARM_SERVER_ORDER_SECONDS=0.5) as farm, farm.api():
        yield farm
        farm.check_logs()


def order(farm: Farm) -> dict[str, Any]:
    answer = farm.http.get("/v1/orders/standing")
    assert answer.is_success, answer.text
    return dict(answer.json())


def complete(farm: Farm, what: str, model: str) -> dict[str, Any]:
    """The order, once it has all plans of what the name stands for now."""

    def look() -> dict[str, Any] | None:
        found = order(farm)
        return (
            found if found["digest"] == model and found["coverage"]["complete"] and found["cells"] else None
        )

    return wait_until(what, look, PATIENCE_SECONDS)


def tag(farm: Farm, seed: int) -> str:
    done = farm.cli("model", "tag", models.small(farm.folder / "model.onnx", seed), "detector:prod", "--json")
    assert done.code == 0, done
    return str(farm.http.get("/v1/names/detector:prod").json()["model"])


def test_what_is_ordered_stays_built(farm: Farm) -> None:
    gpus = [word for capability in CAPABILITIES for word in ("--gpu", capability)]
    done = farm.cli("order", "create", "standing", "--model", "detector:prod", *gpus, "--json")
    assert done.code == 0, done
    assert done.document["problem"]["code"] == "NAME_NOT_FOUND"
    first = tag(farm, 1)
    with farm.worker("one"):
        found = complete(farm, "the worker has joined and built all", first)
        assert [cell["target"]["gpu"] for cell in found["cells"]] == list(CAPABILITIES)
        assert found["measured"] == {"impossible": 2}  # a CPU worker measures nothing, and it is told
        assert "not measured: no worker on such a GPU" in farm.cli("order", "show", "standing").out
        second = tag(farm, 2)
        moved = complete(farm, "the name's new model is built", second)
        plans = {cell["plan"]["digest"] for each in (found, moved) for cell in each["cells"]}
        assert len(plans) == 4
        assert all(farm.plan_file(plan).is_file() for plan in plans)  # old ones stay
        lost = farm.plan_file(moved["cells"][0]["plan"]["digest"])
        lost.unlink()
        shown = farm.cli("order", "show", "standing", "--json").document
        assert shown["cells"][0]["state"] != "succeeded"
        wait_until("the lost plan is built again", lost.is_file, PATIENCE_SECONDS)
        complete(farm, "all is there again", second)
    assert len(farm.http.get("/v1/jobs").json()["jobs"]) == 5
