"""The repository as its own tests read it."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = {
    "trtfarm": ROOT / "trtfarm",
    "trtfarm_db": ROOT / "db" / "trtfarm_db",
    "trtfarm_api": ROOT / "api" / "trtfarm_api",
    "trtfarm_worker": ROOT / "worker" / "trtfarm_worker",
}
_FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)


@lru_cache
def files() -> tuple[Path, ...]:
    """Every file that git tracks or would track; without git, all but caches."""
    try:
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT, capture_output=True, check=True,
        ).stdout.decode().split("\0")  # fmt: skip
    except (OSError, subprocess.CalledProcessError):
        listed = [str(path.relative_to(ROOT)) for path in ROOT.rglob("*") if _ours(path)]
    return tuple(path for name in sorted(listed) if name and (path := ROOT / name).is_file())


def _ours(path: Path) -> bool:
    return not any(part.startswith((".venv", ".git", "__pycache__")) for part in path.parts)


def sources() -> list[tuple[str, Path]]:
    """(dotted name, file) of every module of the four packages."""
    found = []
    for package, folder in PACKAGES.items():
        for path in sorted(folder.rglob("*.py")):
            parts = path.relative_to(folder).with_suffix("").parts
            name = ".".join([package, *(part for part in parts if part != "__init__")])
            found.append((name, path))
    return found


def pages() -> list[Path]:
    return [path for path in files() if path.suffix == ".md"]


class Block(NamedTuple):
    page: str
    language: str
    text: str


def blocks() -> Iterator[Block]:
    """Fenced blocks of every page."""
    for page in pages():
        for match in _FENCE.finditer(page.read_text(encoding="utf-8")):
            yield Block(str(page.relative_to(ROOT)), match[1], match[2])
