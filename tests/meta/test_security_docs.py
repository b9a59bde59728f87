"""docs/security.md names a test for each finding: it is there."""

from __future__ import annotations

import ast
import re

from tests.meta.repository import ROOT

PAGE = ROOT / "docs" / "security.md"
# tests/security/test_a.py::test_b, and ::test_c or test_d.py::test_e, which go on from the one before.
_NAMED = re.compile(r"((?:tests/)?[\w/]*?test_\w+\.py)?(?:::(test_\w+)|\s\(all\))")


def named() -> list[tuple[str, str | None]]:
    found: list[tuple[str, str | None]] = []
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        if not line.startswith("| ") or "test_" not in line:
            continue
        file = ""
        for part, name in _NAMED.findall(line.replace("`", "").rpartition(" | ")[2]):
            if part:
                file = part if "/" in part else f"{file.rpartition('/')[0]}/{part}"
            found.append((file, name or None))
    return found


def test_every_test_that_is_named_is_there():
    names = named()
    assert len(names) > 100
    missing = []
    for file, name in names:
        path = ROOT / file
        if not path.is_file():
            missing.append(f"{file}::{name}")
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        tests = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
        if name is not None and name not in tests:
            missing.append(f"{file}::{name}")
    assert missing == []


def test_every_finding_names_a_test():
    page = PAGE.read_text(encoding="utf-8").partition("## Findings")[2].partition("## Left")[0]
    rows = [line for line in page.splitlines() if line.startswith("| ") and "---" not in line]
    without = [row[:80] for row in rows if "test_" not in row and not row.startswith("| an attacker")]
    assert without == []
