"""A figure beside its peer, and how it is printed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import ceil
from statistics import median
from typing import Any, Literal


class BenchError(Exception):
    """A figure cannot be measured here; the message says what is missing."""


@dataclass(frozen=True)
class Goal:
    """``of``: what is held against the limit, our own value or the ratio to the peer's."""

    of: Literal["ours", "ratio"]
    at: Literal["most", "least"]
    limit: float

    def met(self, figure: Figure) -> bool:
        value = figure.ours if self.of == "ours" else figure.ratio
        return value <= self.limit if self.at == "most" else value >= self.limit

    def text(self, unit: str) -> str:
        sign = "≤" if self.at == "most" else "≥"
        return f"ratio {sign} {self.limit:.2f}" if self.of == "ratio" else f"{sign} {self.limit:g}{unit}"


@dataclass(frozen=True)
class Figure:
    """``details``: what the JSON document says beyond the line. Without a ``goal`` it only informs."""

    name: str
    ours: float
    peer: float
    unit: str
    peer_name: str
    goal: Goal | None
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def ratio(self) -> float:
        return self.ours / self.peer

    @property
    def met(self) -> bool:
        return self.goal is None or self.goal.met(self)

    def cells(self) -> tuple[str, ...]:
        return (
            self.name,
            f"{number(self.ours)}{self.unit}",
            f"{number(self.peer)}{self.unit}",
            f"{self.ratio:.2f}",
            self.goal.text(self.unit) if self.goal else "",
            ("met" if self.met else "MISSED") if self.goal else "",
            self.peer_name,
        )

    def document(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "ours": self.ours,
            "peer": self.peer,
            "ratio": self.ratio,
            "unit": self.unit.strip(),
            "peer_name": self.peer_name,
            "goal": self.goal.text(self.unit) if self.goal else None,
            "met": self.met if self.goal else None,
            **self.details,
        }


HEADINGS = ("name", "ours", "peer", "ratio", "goal", "", "the peer is")
_LEFT = {0, 4, 5, 6}
_WIDTHS = (24, 12, 12, 7, 14, 7, 0)  # fixed, so that each line can be printed when it is known


def line(cells: Sequence[str]) -> str:
    aligned = (
        cell.ljust(width) if column in _LEFT else cell.rjust(width)
        for column, (cell, width) in enumerate(zip(cells, _WIDTHS, strict=True))
    )
    return "  ".join(aligned).rstrip()


def number(value: float) -> str:
    """Three significant digits, and all of those before the point."""
    if value >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that ``percent`` of the values do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, ceil(len(ordered) * percent / 100) - 1)]


def summary(seconds: Sequence[float]) -> dict[str, float]:
    """Milliseconds, for the JSON document."""
    return {
        "n": len(seconds),
        "min_ms": min(seconds) * 1e3,
        "median_ms": median(seconds) * 1e3,
        "p99_ms": percentile(seconds, 99) * 1e3,
        "max_ms": max(seconds) * 1e3,
    }
