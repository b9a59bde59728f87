"""Bad input: the command line says what is wrong, with a stable code and exit status, and nothing is lost."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from pathlib import Path

import pytest
from port_for import select_random

from tests import services
from tests.acceptance import models
from tests.acceptance.farms import Done, Farm, a_farm, run_cli

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"a" * 64 + b"\nsize 12345\n"
FILES = {
    "empty": (b"", "NOT_ONNX"),
    "pickle": (pickle.dumps({"weights": [1.0] * 100}), "NOT_ONNX"),
    "html": (b"<!DOCTYPE html><html><body>404</body></html>", "NOT_ONNX"),
    "git-lfs": (LFS, "NOT_ONNX"),
    "truncated": (models.light("squeezenet").read_bytes()[:7000], "ONNX_TRUNCATED"),
}
SQUEEZENET = models.light("squeezenet")


@pytest.fixture(scope="module")
def farm(
    postgres_server: services.PostgresServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Farm]:
    """One worker is enough: most of this never reaches it."""
    folder = tmp_path_factory.mktemp("farm")
    with a_farm(folder, postgres_server) as farm, farm.api(), farm.worker("worker"):
        yield farm
        farm.check_logs()


def check(done: Done, code: int, name: str) -> dict[str, str]:
    assert done.code == code, done
    error = done.error
    assert error["code"] == name
    assert error["message"]
    return error


@pytest.mark.parametrize("kind", FILES)
def test_what_is_no_onnx_file(farm: Farm, tmp_path: Path, kind: str) -> None:
    data, code = FILES[kind]
    path = tmp_path / "model.onnx"
    path.write_bytes(data)
    check(farm.cli("build", path, "--gpu", "cc-8.9", "--json"), 2, code)


def test_no_file(farm: Farm, tmp_path: Path) -> None:
    done = farm.cli("build", tmp_path / "none.onnx", "--gpu", "cc-8.9", "--json")
    error = check(done, 2, "LOCAL_FILE")
    assert "none.onnx" in error["message"]


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["--gpu", "rtx-4900"], "UNKNOWN_GPU", "rtx-4900"),
        (["--gpu", "cc-9.0"], "TARGET_UNAVAILABLE", "cc-9.0"),
        (["--gpu", "cc-8.9", "--runtime", "tensorrt-10.0.1"], "UNKNOWN_RUNTIME", "tensorrt-10.0.1"),
        (["--gpu", "cc-8.9", "--runtime", "openvino"], "UNKNOWN_RUNTIME", "openvino"),
        (["--gpu", "cc-8.9", "--builderOptimisationLevel=3"], "OPTION_UNKNOWN", "builderOptimisationLevel"),
        (["--gpu", "cc-8.9", "--int8"], "OPTION_UNSUPPORTED", "int8"),
        (["--gpu", "cc-8.9", "--duration=10"], "OPTION_UNSUPPORTED", "duration"),
        (["--gpu", "cc-8.9", "--memPoolSize=workspace:lots"], "VALIDATION_ERROR", "memPoolSize"),
        (["--gpu", "cc-8.9", "--timeout", "0"], "VALIDATION_ERROR", "timeout"),
        (["--gpu", ""], "VALIDATION_ERROR", "gpu"),
        ([], "VALIDATION_ERROR", "--gpu"),
        (["--gpu", "cc-8.9", "--shapes=nope:1x3x224x224"], "PROFILE_INVALID", "nope"),
    ],
)
def test_what_cannot_be_asked_for(farm: Farm, arguments: list[str], code: str, told: str) -> None:
    error = check(farm.cli("build", SQUEEZENET, *arguments, "--json"), 2, code)
    assert told in error["message"]


def test_the_nearest_spelling_is_offered(farm: Farm) -> None:
    done = farm.cli("build", SQUEEZENET, "--gpu", "cc-8.9", "--builderOptimisationLevel=3", "--json")
    assert "--builderOptimizationLevel" in done.error["hint"]
    assert "rtx-4090" in farm.cli("build", SQUEEZENET, "--gpu", "rtx-4900", "--json").error["hint"]


def test_int8_on_rtx_says_what_to_do_instead(farm: Farm) -> None:
    done = farm.cli("build", SQUEEZENET, "--gpu", "cc-8.9", "--int8", "--json")
    assert "--int8" in done.error["message"]
    assert "tensorrt-rtx" in done.error["message"]
    assert done.error["hint"]


@pytest.mark.parametrize(
    ("shapes", "code"),
    [
        ([], "PROFILE_REQUIRED"),
        (["--minShapes=x:4x3x8x8", "--optShapes=x:2x3x8x8", "--maxShapes=x:8x3x8x8"], "PROFILE_INVALID"),
        (["--minShapes=x:1x3x8x8", "--optShapes=x:4x3x8x8", "--maxShapes=x:2x3x8x8"], "PROFILE_INVALID"),
        (["--shapes=y:1x3x8x8"], "PROFILE_INVALID"),
        (["--shapes=x:1x3x8"], "PROFILE_INVALID"),
        (["--shapes=x:1x4x8x8"], "PROFILE_INVALID"),
        (["--shapes=x:1x3x0x8"], "PROFILE_INVALID"),
    ],
)
def test_profiles(farm: Farm, tmp_path: Path, shapes: list[str], code: str) -> None:
    model = models.dynamic(tmp_path / "dynamic.onnx")
    check(farm.cli("build", model, "--gpu", "cc-8.9", "--json", *shapes), 2, code)


def test_what_is_not_there(farm: Farm) -> None:
    for command in ("show", "watch", "logs", "cancel", "retry"):
        check(farm.cli("job", command, "0199e0c2-0000-7000-8000-000000000000", "--json"), 3, "NOT_FOUND")
    check(farm.cli("plan", "show", "sha256:" + "0" * 64, "--json"), 3, "NOT_FOUND")
    check(farm.cli("plan", "pull", "0" * 12, "--json"), 3, "NOT_FOUND")


def test_a_place_that_cannot_be_written(farm: Farm, tmp_path: Path) -> None:
    """Where it shows only when the plan is there, that is safe on the farm all the same."""
    model = models.small(tmp_path / "model.onnx", seed=1)
    (tmp_path / "file").touch()
    done = farm.cli("build", model, "--gpu", "cc-8.9", "-o", tmp_path / "file/plan", "--json")
    check(done, 2, "LOCAL_FILE")
    done = farm.cli("build", model, "--gpu", "cc-8.9", "-o", "/proc/none/plan", "--json")
    check(done, 2, "LOCAL_FILE")
    assert farm.cli("build", model, "--gpu", "cc-8.9", "--json").job["disposition"] == "reused"


def test_nobody_answers(farm: Farm) -> None:
    env = farm.client_env | {"TRTFARM_URL": f"http://127.0.0.1:{select_random()}"}
    for command in (["build", SQUEEZENET, "--gpu", "cc-8.9"], ["fleet"], ["job", "list"], ["plan", "list"]):
        check(run_cli(*command, "--json", env=env), 5, "FARM_UNREACHABLE")


def test_somebody_else_answers(farm: Farm) -> None:
    env = farm.client_env | {"TRTFARM_URL": farm.redis.url.replace("redis:", "http:")}
    check(run_cli("fleet", "--json", env=env), 5, "FARM_UNREACHABLE")


def test_a_key_that_can_be_none(farm: Farm) -> None:
    env = farm.client_env | {"TRTFARM_API_KEY": "ключ"}
    check(run_cli("fleet", "--json", env=env), 4, "AUTH_INVALID")


def test_text_for_people_without_json(farm: Farm) -> None:
    done = farm.cli("build", SQUEEZENET, "--gpu", "rtx-4900")
    assert (done.code, done.out) == (2, "")
    assert "UNKNOWN_GPU" in done.err


def test_nothing_was_lost(farm: Farm, tmp_path: Path) -> None:
    done = farm.cli("build", models.small(tmp_path / "model.onnx", seed=2), "--gpu", "cc-8.9", "--json")
    assert done.code == 0, done
    assert done.job["state"] == "succeeded"
