"""``trtfarm model`` and ``build --tag`` against a served farm."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.acceptance.farms import Done
from tests.integration.api.world import World, onnx_model
from trtfarm.cli.main import app
from trtfarm.contract.digest import Digest


@pytest.fixture
def run(world: World, tmp_path: Path) -> Any:
    env = {"TRTFARM_URL": world.url, "TRTFARM_HOME": str(tmp_path / "home")}

    def run(*arguments: str | Path) -> Done:
        done = CliRunner().invoke(app, [*map(str, arguments)], env=env)
        assert isinstance(done.exception, SystemExit | None), done.exception
        return Done(done.exit_code, done.stdout, done.stderr)

    return run


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "detector.onnx"
    path.write_bytes(onnx_model())
    return path


def test_a_name_from_file_to_end(run: Any, model: Path) -> None:
    digest = Digest.of_bytes(model.read_bytes())
    done = run("model", "tag", model, "cli/detector:candidate", "cli/detector", "--json")
    assert done.code == 0, done.err
    named = [(each["reference"], each["model"]) for each in done.document["names"]]
    assert named == [("cli/detector:candidate", digest), ("cli/detector:latest", digest)]
    assert run("model", "tag", "cli/detector:candidate", "cli/detector:prod").code == 0
    listed = run("model", "list", "--name", "cli/detector", "--json").document["models"]
    assert [len(each["names"]) for each in listed] == [3]
    assert "cli/detector:prod" in run("model", "list").out
    shown = run("model", "show", "cli/detector:prod", "--json").document
    assert (shown["digest"], [each["previous"] for each in shown["moves"]]) == (digest, [None])
    assert "input x" in run("model", "show", digest).out
    assert run("model", "untag", "cli/detector:prod").code == 0
    gone = run("model", "show", "cli/detector:prod")
    assert (gone.code, "taken away" in gone.out) == (0, True)
    again = run("model", "untag", "cli/detector:prod", "--json")
    assert (again.code, again.error["code"]) == (3, "NAME_NOT_FOUND")


def test_a_build_names_its_model_and_takes_a_name(run: Any, model: Path) -> None:
    build = ("--gpu", "cc-8.9", "--detach", "--json")
    first = run("build", model, *build, "--tag", "cli/built:prod").job
    again = run("build", "cli/built:prod", *build).job
    assert (again["disposition"], again["job_id"]) == ("joined", first["job_id"])
    by_digest = run("build", Digest.of_bytes(model.read_bytes()), *build).job
    assert by_digest["job_id"] == first["job_id"]


@pytest.mark.parametrize(
    ("arguments", "code", "error"),
    [
        (("model", "tag", "nothing.onnx", "a:b"), 2, "LOCAL_FILE"),
        (("model", "tag", "no:such", "a:b"), 3, "NAME_NOT_FOUND"),
        (("model", "untag", "Not A Name"), 2, "INVALID_NAME"),
        (("model", "show", "sha256:12"), 2, "INVALID_DIGEST"),
        (("build", "no:such", "--gpu", "cc-8.9"), 3, "NAME_NOT_FOUND"),
        (("build", "nothing.onnx", "--gpu", "cc-8.9"), 2, "LOCAL_FILE"),
    ],
)
def test_what_is_refused(run: Any, arguments: tuple[str, ...], code: int, error: str) -> None:
    done = run(*arguments, "--json")
    assert (done.code, done.error["code"]) == (code, error)
