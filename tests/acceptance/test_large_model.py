"""A model over 2 GiB, weights in external data: uploaded, built and pulled, with the API's memory flat."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import services
from tests.acceptance import models
from tests.acceptance.farms import a_farm
from tests.acceptance.processes import peak_resident_bytes

LAYERS, SIDE = 17, 8192  # 128 MiB each
MEMORY_LIMIT_BYTES = 300 * 10**6
SECONDS = 280


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """Six copies of the model come to lie here; pytest would keep them."""
    yield tmp_path
    shutil.rmtree(tmp_path)


@pytest.mark.timeout(400)
def test_over_two_gib(folder: Path, postgres_server: services.PostgresServer) -> None:
    model, plan = models.with_external_data(folder / "large.onnx", LAYERS, SIDE), folder / "large.plan"
    model_bytes = model.with_suffix(".bin").stat().st_size
    assert model_bytes > 2**31
    with a_farm(folder, postgres_server) as farm, farm.api() as api, farm.worker("worker") as worker:
        done = farm.cli("build", model, "--gpu", "cc-8.9", "-o", plan, "--json", seconds=SECONDS)
        assert done.code == 0, done
        assert done.job["state"] == "succeeded"
        # The pull has compared the digest.
        assert plan.stat().st_size == done.job["plan"]["size_bytes"] > 2**31
        peaks = {
            part: peak_resident_bytes(process.pid) for part, process in (("api", api), ("worker", worker))
        }
        print(f"{model_bytes} bytes of weights; peak memory {peaks}")
        assert max(peaks.values()) < MEMORY_LIMIT_BYTES
        farm.check_logs()
