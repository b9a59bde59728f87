"""For who waits anyway: a farm that has answered before may be away for a minute, as for an upgrade."""

from __future__ import annotations

import time

from trtfarm.errors import FarmUnreachableError
from trtfarm.sdk.answers import unreachable
from trtfarm.sdk.calls import BACKOFF_SECONDS, TRIES
from trtfarm.sdk.flow import Flow, pause

AWAY_SECONDS = 60.0
_SLOWEST_SECONDS = 2.0


class Away:
    def __init__(self) -> None:
        self._heard = False
        self._since = 0.0
        self._times = 0

    def over(self) -> None:
        self._heard, self._times = True, 0

    def bear(self, error: Exception) -> Flow[None]:
        """Waits before the next try, or raises: as FarmUnreachableError what is an error of the line."""
        now = time.monotonic()
        self._times += 1
        if self._times == 1:
            self._since = now
        stranger = isinstance(error, FarmUnreachableError)
        enough = now - self._since > AWAY_SECONDS if self._heard else stranger or self._times >= TRIES
        if enough and stranger:
            raise error
        if enough:
            raise unreachable(error) from error
        yield from pause(min(BACKOFF_SECONDS * 2**self._times, _SLOWEST_SECONDS))
