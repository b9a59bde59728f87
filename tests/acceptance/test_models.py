"""A plan of the farm is, byte for byte, what TensorRT-RTX's own API gives."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance import direct_build, models
from tests.acceptance.farms import Farm
from tests.acceptance.processes import Process, clean_environment, running

_BUILD_SECONDS = 120


@contextmanager
def direct(model: Path, folder: Path, **options: Any) -> Iterator[tuple[Process, Path]]:
    """A direct build under way in a fresh process, and where its plan will be."""
    plan = folder / "direct.plan"
    command = [sys.executable, direct_build.__file__, model, plan, json.dumps(options)]
    with running(command, clean_environment(), folder / "direct.log") as process:
        yield process, plan


def check_identical(farm: Farm, model: Path, folder: Path, *arguments: str, **options: Any) -> None:
    with direct(model, folder, **options) as (process, expected):
        done = farm.cli("build", model, "--gpu", "cc-8.9", "-o", folder / "farm.plan", "--json", *arguments)
        assert process.wait(_BUILD_SECONDS) == 0, process.text()
    assert done.code == 0, done
    job = done.job
    assert (job["state"], job["disposition"], job["error"]) == ("succeeded", "created", None)
    assert job["target"]["gpu"] == "cc-8.9"
    plan = (folder / "farm.plan").read_bytes()
    assert job["plan"]["path"] == str(folder / "farm.plan")
    assert job["plan"]["size_bytes"] == len(plan)
    assert plan == expected.read_bytes()


@pytest.mark.parametrize("name", models.LIGHT)
def test_real_topology(farm: Farm, tmp_path: Path, name: str) -> None:
    check_identical(farm, models.light(name), tmp_path)


def test_there_are_nine() -> None:
    assert len(models.LIGHT) == 9


def test_with_options(farm: Farm, tmp_path: Path) -> None:
    check_identical(
        farm,
        models.light("squeezenet"),
        tmp_path,
        "--profilingVerbosity=detailed",
        "--memPoolSize=workspace:512",
        "--noTF32",
        detailed=True,
        workspace_mib=512,
        no_tf32=True,
    )


def test_dynamic_shapes(farm: Farm, tmp_path: Path) -> None:
    check_identical(
        farm,
        models.dynamic(tmp_path / "dynamic.onnx"),
        tmp_path,
        "--minShapes=x:1x3x32x32",
        "--optShapes=x:4x3x64x64",
        "--maxShapes=x:8x3x128x128",
        profile={"x": [[1, 3, 32, 32], [4, 3, 64, 64], [8, 3, 128, 128]]},
    )
