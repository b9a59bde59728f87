"""What people get when they install it."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
import tomllib
from pathlib import Path
from zipfile import ZipFile

import pytest

import trtfarm
from tests.meta.repository import PACKAGES, ROOT
from trtfarm.contract.typed import CONVERTER


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> ZipFile:
    """Built offline, with the build tools that are installed."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return ZipFile(next(folder.glob("*.whl")))


def test_four_packages_and_nothing_else(wheel):
    top = {name.partition("/")[0] for name in wheel.namelist()}
    assert top == {*PACKAGES, f"trtfarm-{trtfarm.__version__}.dist-info"}


def test_every_module_is_in_the_wheel(wheel):
    names = set(wheel.namelist())
    for package, folder in PACKAGES.items():
        for path in folder.rglob("*.py"):
            assert f"{package}/{path.relative_to(folder).as_posix()}" in names
        assert f"{package}/py.typed" in names


def test_what_is_no_module_is_in_the_wheel(wheel):
    names = set(wheel.namelist())
    assert {f"trtfarm/configs/{name}.toml" for name in ("targets", "api", "worker")} <= names
    assert "trtfarm_db/migrations/env.py" in names
    assert any(name.startswith("trtfarm_db/migrations/versions/2") for name in names)
    assert any(name.endswith("/licenses/LICENSE") for name in names)


def test_versions_agree(wheel):
    metadata = wheel.read(f"trtfarm-{trtfarm.__version__}.dist-info/METADATA").decode()
    assert f"\nVersion: {trtfarm.__version__}\n" in metadata
    with (ROOT / "pyproject.toml").open("rb") as file:
        assert tomllib.load(file)["project"]["version"] == trtfarm.__version__


def test_the_wheel_works_alone(wheel, tmp_path):
    """Unpacked, outside of the checkout: the catalogue and the migrations are found."""
    wheel.extractall(tmp_path)
    check = (
        "from trtfarm.catalogue import Catalogue; from trtfarm_db import schema;"
        "print(Catalogue.load().resolve('l4').slug, schema.head(), schema.__file__)"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", check], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("l4 2")
    assert str(tmp_path) in done.stdout


def test_an_editable_install_is_this_checkout(tmp_path):
    """Not another one that was installed before it, and not the folder that the tests run in."""
    files = ", ".join(f"{name}.__file__" for name in PACKAGES)
    check = f"import {', '.join(PACKAGES)}; print({files}, sep='\\n')"
    done = subprocess.run(
        [sys.executable, "-I", "-c", check], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    found = [Path(line) for line in done.stdout.splitlines()]
    assert found == [folder / "__init__.py" for folder in PACKAGES.values()]


def test_an_editable_install_is_plain_path_entries():
    """Editors and mypy follow paths; they do not run an import hook."""
    distribution = importlib.metadata.distribution("trtfarm")
    installed = [Path(str(file.locate())) for file in distribution.files or ()]
    pth = [path for path in installed if path.suffix == ".pth"]
    assert len(pth) == 1
    lines = {Path(line) for line in pth[0].read_text().splitlines()}
    assert lines == {folder.parent for folder in PACKAGES.values()}


def test_every_console_script_can_be_loaded():
    scripts = list(importlib.metadata.distribution("trtfarm").entry_points)
    assert [each.name for each in scripts] == ["trtfarm"]
    assert callable(scripts[0].load())


def test_the_converter_is_the_one_in_the_build_key():
    with (ROOT / "pyproject.toml").open("rb") as file:
        extras = tomllib.load(file)["project"]["optional-dependencies"]
    assert extras["typed"] == [CONVERTER.replace("-", "==")]


def test_locked_requirements_have_hashes_and_no_index():
    for name in ("requirements.txt", "requirements-dev.txt", "requirements-build.txt"):
        lines = (ROOT / name).read_text().splitlines()
        pinned = [number for number, line in enumerate(lines) if "==" in line and not line.startswith(" ")]
        assert pinned
        for number in pinned:
            assert "--hash=sha256:" in lines[number + 1], f"{name}: {lines[number]}"
        assert not any(line.startswith(("-i", "--index", "--extra", "--find", "--trusted")) for line in lines)
