"""How often those who follow jobs look into the database."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

_LOOKS_PER_SECOND = 200  # of one process, however many follow
_LOOK_SECONDS = 0.01
_LONGEST_SECONDS = 0.5
_LATENESS = 0.03


class Pace:
    """Quick after something happened, then slower and slower; and slower, the more there are who follow.

    Called from the event loop only.
    """

    def __init__(self) -> None:
        self._followers = 0

    @contextlib.contextmanager
    def follower(self) -> Iterator[None]:
        self._followers += 1
        try:
            yield
        finally:
            self._followers -= 1

    def seconds(self, quiet_seconds: float) -> float:
        """Until the next look, after ``quiet_seconds`` without news, which is thus a few percent late."""
        wanted = min(max(_LOOK_SECONDS, quiet_seconds * _LATENESS), _LONGEST_SECONDS)
        return max(wanted, self._followers / _LOOKS_PER_SECOND)
