"""Slow work that strangers cause: in threads of its own, and in turns between those who wait."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import ParamSpec, TypeVar

from anyio import CapacityLimiter, Event, to_thread

from trtfarm.errors import TooManyUploadsError

P = ParamSpec("P")
T = TypeVar("T")


class Turns:
    """Belongs to one event loop. Who waits holds no thread.

    A free place goes to the submitter who has waited longest since the last turn, however much others have
    queued. One place is left to others for as long as a submitter has all the rest.

    Args:
        at_once: places.
        waiting: how many of one submitter may wait.
        abandon: leave a call to itself when it is cancelled, instead of waiting for its end.
    """

    def __init__(self, at_once: int, *, waiting: int, abandon: bool = False) -> None:
        self._free = at_once
        self._each = max(1, at_once - 1)
        self._most_waiting = waiting
        self._abandon = abandon
        self._running: Counter[str] = Counter()
        self._waiting: dict[str, deque[Event]] = {}  # in the order of their turns
        self._threads = CapacityLimiter(at_once)

    async def run(self, submitter: str, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Calls a function in a thread when it is the submitter's turn.

        Raises:
            TooManyUploadsError: more of this submitter wait than may.
        """
        async with self.turn(submitter):
            return await to_thread.run_sync(
                partial(function, *args, **kwargs), abandon_on_cancel=self._abandon, limiter=self._threads
            )

    @asynccontextmanager
    async def turn(self, submitter: str) -> AsyncIterator[None]:
        """Raises TooManyUploadsError."""
        if self._free and self._running[submitter] < self._each:  # else somebody would have been let in
            self._start(submitter)
        else:
            await self._wait(submitter)
        try:
            yield
        finally:
            self._end(submitter)

    async def _wait(self, submitter: str) -> None:
        queue = self._waiting.setdefault(submitter, deque())
        if len(queue) >= self._most_waiting:
            raise TooManyUploadsError(
                f"{len(queue)} uploads of this key wait already.",
                hint="Send the last, empty piece again in a while; nothing is lost.",
            )
        called = Event()
        queue.append(called)
        try:
            await called.wait()
        except BaseException:
            if called.is_set():
                self._end(submitter)
            else:
                queue.remove(called)
                if not queue:
                    del self._waiting[submitter]
            raise

    def _start(self, submitter: str) -> None:
        self._free -= 1
        self._running[submitter] += 1

    def _end(self, submitter: str) -> None:
        self._free += 1
        self._running[submitter] -= 1
        if not self._running[submitter]:
            del self._running[submitter]
        for each in list(self._waiting):
            if not self._free:
                return
            if self._running[each] < self._each:
                queue = self._waiting.pop(each)
                self._start(each)
                queue.popleft().set()
                if queue:
                    self._waiting[each] = queue  # behind all others
