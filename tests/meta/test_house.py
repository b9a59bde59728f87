"""House rules that a machine can check."""

from __future__ import annotations

import re

import pytest

from tests.meta.repository import ROOT, files, sources

MAX_LINES = 400
_HOSTS = re.compile(
    r"pypi\.org|pythonhosted\.org|pypi\.nvidia\.com|nvcr\.io|ghcr\.io|quay\.io|docker\.io|npmjs\.org"
)
_INDEX = re.compile(r"(?<!emit-)(?:extra-)?(?:index)-url\b|(?<!emit-)(?:find)-links\b")
_MACHINE = re.compile(r"(?<![\w.])/(?:home|Users)/\w+/|(?<![\w.])/(?:root)/\w")


def _texts() -> list[tuple[str, str]]:
    found = []
    for path in files():
        try:
            found.append((str(path.relative_to(ROOT)), path.read_text(encoding="utf-8")))
        except UnicodeDecodeError:
            continue
    return found


@pytest.fixture(scope="module")
def texts() -> list[tuple[str, str]]:
    found = _texts()
    assert len(found) > 100
    return found


def test_no_registry_is_named(texts):
    """Where packages and images come from is the choice of who installs them."""
    rules = (_HOSTS, _INDEX)
    wrong = [f"{name}: {m.group()}" for name, text in texts for rule in rules for m in rule.finditer(text)]
    assert wrong == []


def test_no_path_of_a_machine(texts):
    """Nothing may depend on where this checkout lies, or on somebody's home."""
    here = [f"{ROOT}/{path.relative_to(ROOT).parts[0]}" for path in files()]
    wrong = [f"{name}: {match.group()}" for name, text in texts for match in _MACHINE.finditer(text)]
    wrong += [f"{name}: {path}" for name, text in texts for path in sorted(set(here)) if path in text]
    assert wrong == []


def test_modules_are_short():
    """A module of more lines has two subjects."""
    long = {
        name: count
        for name, path in sources()
        if (count := len(path.read_text(encoding="utf-8").splitlines())) > MAX_LINES
    }
    assert long == {}


def test_text_files_end_in_one_newline_and_have_no_trailing_blanks(texts):
    checked = (".py", ".md", ".toml", ".yml", ".example", "Makefile", "Dockerfile")
    for name, text in texts:
        if name.endswith(checked) and text:
            assert text.endswith("\n"), name
            assert not text.endswith("\n\n"), name
            assert not re.search(r"[ \t]$", text, re.MULTILINE), name
