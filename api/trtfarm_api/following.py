"""Who follows which jobs, and when they look into the database."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from typing import Annotated

from fastapi import Depends
from starlette.requests import HTTPConnection

_LOOKS_PER_SECOND = 200  # of all followers together
_SHORTEST_SECONDS, _LONGEST_SECONDS = 0.02, 0.5
_SHORTEST_WHEN_TOLD_SECONDS = 0.25  # progress comes without a notice, and a notice may get lost
_LATENESS = 0.1
_FIRST_FORECAST_SECONDS, _FORECAST_SECONDS = 0.5, 2.0


class Followers:
    """Of one API process. Used from its event loop only; ``told``: whether the database tells of news."""

    def __init__(self, told: Callable[[], bool]) -> None:
        self._told = told
        self._events: dict[str, set[asyncio.Event]] = {}
        self._count = 0
        self.ended = False

    def end(self) -> None:
        """The server stops: streams end at once, and who followed goes on with the next server."""
        self.ended = True
        for job_id in list(self._events):
            self.tell(job_id)

    def tell(self, job_id: str) -> None:
        """Something has happened to a job."""
        for event in self._events.get(job_id, ()):
            event.set()

    @contextlib.contextmanager
    def follow(self, job_id: str) -> Iterator[Follower]:
        event = asyncio.Event()
        self._events.setdefault(job_id, set()).add(event)
        self._count += 1
        try:
            yield Follower(self, event)
        finally:
            self._count -= 1
            self._events[job_id].discard(event)
            if not self._events[job_id]:
                del self._events[job_id]

    def pause_seconds(self, quiet_seconds: float) -> float:
        """Short after something happened, then longer and longer; longer too, the more there follow."""
        shortest = _SHORTEST_WHEN_TOLD_SECONDS if self._told() else _SHORTEST_SECONDS
        pause = min(max(shortest, quiet_seconds * _LATENESS), _LONGEST_SECONDS)
        return max(pause, self._count / _LOOKS_PER_SECOND)


class Follower:
    """One who follows one job."""

    def __init__(self, followers: Followers, event: asyncio.Event) -> None:
        self._followers = followers
        self._event = event
        self._loop = asyncio.get_running_loop()
        self.changed()

    def changed(self) -> None:
        self._changed_at = self._loop.time()
        self._forecast_at = self._changed_at + _FIRST_FORECAST_SECONDS

    def forecast_due(self) -> bool:
        """Now and then while nothing happens; not for what is over in a moment."""
        if self._loop.time() < self._forecast_at:
            return False
        self._forecast_at = self._loop.time() + _FORECAST_SECONDS
        return True

    async def wait(self) -> None:
        """Until it is time to look: also for what was told since the last wait."""
        pause = self._followers.pause_seconds(self._loop.time() - self._changed_at)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._event.wait(), pause)
        self._event.clear()


async def _followers(connection: HTTPConnection) -> Followers:
    followers: Followers = connection.app.state.followers
    return followers


FollowersDep = Annotated[Followers, Depends(_followers)]
