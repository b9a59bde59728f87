"""Layers by name, as ``--layerPrecisions`` gives them: exactly, or with one ``*``."""

from __future__ import annotations

from collections.abc import Iterable


def fits(pattern: str, name: str) -> bool:
    before, star, after = pattern.partition("*")
    if not star:
        return pattern == name
    return len(name) >= len(before) + len(after) and name.startswith(before) and name.endswith(after)


def best(patterns: Iterable[str], name: str) -> str | None:
    """The one that goes before the others: the exact name, else the longest."""
    fitting = [pattern for pattern in patterns if fits(pattern, name)]
    return name if name in fitting else max(fitting, key=len, default=None)
