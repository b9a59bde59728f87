"""The Python examples of the pages run as they stand, with real builds on an embedded farm."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from sybil import Sybil
from sybil.example import Example
from sybil.parsers.markdown import CodeBlockParser, PythonCodeBlockParser

from tests.acceptance import models
from tests.meta.repository import ROOT


@pytest.mark.parametrize("page", ["README.md", "docs/sdk.md"])
def test_the_examples_of(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In one namespace. A block of text right after one of Python is what that prints."""
    monkeypatch.setenv("TRTFARM_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    for name in ("resnet50", "squeezenet"):
        shutil.copy(models.light(name), f"{name}.onnx")
    models.dynamic(tmp_path / "dynamic.onnx")
    ends: list[int] = []

    def prints(example: Example) -> None:
        gap = example.document.text[max(ends, default=0) : example.region.start]
        if ends and not gap.strip():
            assert capsys.readouterr().out == str(example.parsed)

    sybil = Sybil([PythonCodeBlockParser(), CodeBlockParser("text", prints)], path=str(ROOT))
    for example in sybil.parse(ROOT / page).examples():
        if example.region.evaluator is not prints:
            capsys.readouterr()
            example.evaluate()
            ends.append(example.region.end)
        else:
            prints(example)
    assert ends
