"""The templates in configs/ say what the code says."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, SecretStr

from tests.meta.repository import ROOT
from trtfarm.compose.settings import ApiSettings, WorkerFileSettings
from trtfarm.errors import ConfigurationError

TEMPLATES = [("api.toml", ApiSettings), ("worker.toml", WorkerFileSettings)]
# Defaults that depend on the machine: the template has an example.
BY_MACHINE = {
    "server.inspection_processes": 4,
    "worker.slots": 4,
    "worker.child_memory_bytes": 34359738368,
}
_COMMENTED = re.compile(r"^#(?=[a-z_]+ = )", re.MULTILINE)


@pytest.fixture(params=TEMPLATES, ids=[name for name, _ in TEMPLATES])
def template(request: pytest.FixtureRequest) -> tuple[Path, Any]:
    name, settings = request.param
    return ROOT / "configs" / name, settings


def _keys(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _keys(field.annotation, f"{prefix}{name}.")
        else:
            yield prefix + name


def _leaves(document: dict[str, Any], keys: set[str], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in document.items():
        if isinstance(value, dict) and prefix + name not in keys:
            yield from _leaves(value, keys, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _value(settings: BaseModel, key: str) -> Any:
    value: Any = settings
    for part in key.split("."):
        value = getattr(value, part)
    return value


def _plain(value: Any) -> Any:
    """As TOML writes it."""
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    if isinstance(value, tuple):
        return list(value)
    return str(value) if isinstance(value, Path) else value


def test_as_it_is_a_template_changes_nothing(template):
    path, settings = template
    loaded, defaults = settings.load(path), settings.load()
    assert loaded.model_dump(exclude={"worker": {"slots"}}) == defaults.model_dump(
        exclude={"worker": {"slots"}}
    )


def test_a_template_has_every_key_with_its_default(template):
    path, settings = template
    whole = _COMMENTED.sub("", path.read_text(encoding="utf-8"))
    keys = set(_keys(settings))
    written = dict(_leaves(tomllib.loads(whole), keys))
    assert set(written) == keys
    plain = settings.load()
    for key, default in ((key, _value(plain, key)) for key in keys):
        if key in BY_MACHINE:
            assert written[key] == BY_MACHINE[key]
        elif default is not None:
            assert written[key] == _plain(default), key


def test_a_template_with_every_line_uncommented_loads(template, tmp_path):
    path, settings = template
    whole = tmp_path / path.name
    whole.write_text(_COMMENTED.sub("", path.read_text(encoding="utf-8")), encoding="utf-8")
    assert settings.load(whole)


def test_an_unknown_key_is_refused(template, tmp_path):
    path, settings = template
    wrong = tmp_path / path.name
    wrong.write_text(
        path.read_text(encoding="utf-8").replace("[redis]", "[redis]\nprot = 1"), encoding="utf-8"
    )
    with pytest.raises(ConfigurationError, match=r"redis\.prot"):
        settings.load(wrong)


def test_a_variable_wins_over_the_file(template, monkeypatch):
    path, settings = template
    monkeypatch.setenv("TRTFARM_DATABASE_POOL_SIZE", "3")
    assert settings.load(path).database.pool_size == 3


def test_a_variable_of_somebody_else_is_let_be(template, monkeypatch):
    path, settings = template
    for name in (
        "TRTFARM_VERSION",
        "TRTFARM_LISTEN_ADDRESS",
        "TRTFARM_TEST_REDIS_URL",
        "TRTFARMS_WORKR_SLOTS",
    ):
        monkeypatch.setenv(name, "nonsense")
    assert settings.load(path)


def test_no_default_is_a_secret():
    for _, settings in TEMPLATES:
        for key in _keys(settings):
            if key.endswith("url"):
                text = _plain(_value(settings.load(), key))
                assert not re.search(r"://[^/@]*:[^/@]+@", text), key
