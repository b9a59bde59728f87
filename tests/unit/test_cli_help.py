"""Every command explains itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from trtfarm.cli.main import app
from trtfarm.contract.trtexec_options import OPTIONS


def commands(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name)


ALL = sorted(commands(typer.main.get_command(app)))
LONG_RUNNING = {("serve",), ("worker",)}


def help_of(*path: str) -> str:
    done = CliRunner().invoke(app, [*path, "--help"], env={"COLUMNS": "200"})
    assert done.exit_code == 0
    return done.output


def test_all_are_here() -> None:
    names = {" ".join(path) for path in ALL}
    assert {"demo", "build", "fleet", "serve", "worker", "doctor", "db upgrade"} <= names
    assert {f"job {verb}" for verb in ("list", "show", "watch", "logs", "cancel", "retry")} <= names
    assert {f"plan {verb}" for verb in ("list", "show", "pull")} <= names
    assert {f"key {verb}" for verb in ("create", "list", "revoke")} <= names


@pytest.mark.parametrize("path", ALL, ids=" ".join)
def test_help_has_an_example(path: tuple[str, ...]) -> None:
    assert f"Example: trtfarm {' '.join(path)}" in help_of(*path)


@pytest.mark.parametrize("path", [path for path in ALL if path not in LONG_RUNNING], ids=" ".join)
def test_has_json(path: tuple[str, ...]) -> None:
    assert "--json" in help_of(*path)


def test_build_lists_trtexecs_options() -> None:
    text = help_of("build")
    assert all(option.spelling in text for option in OPTIONS)


def test_the_root_names_the_environment() -> None:
    assert "TRTFARM_URL" in help_of()
