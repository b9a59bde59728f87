"""What a client does, as steps: written once, for threads and for event loops.

A flow is a generator. It yields a step and gets what came of it, or has the step's error raised, as the flows
of httpx's own authentication do. ``running`` has the two that take the steps.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Generator, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeAlias, TypeVar

import httpx

T = TypeVar("T")
E = TypeVar("E")
MOST_ANSWER_BYTES = 256 * 2**20
"""Bytes of a document; the largest are matrices of thousands of cells."""


@dataclass(frozen=True)
class Call:
    """One HTTP call, answered whole. Options are those of ``httpx.Client.build_request``.

    ``content`` may be an iterator, which is read as it is sent and off the event loop.
    """

    method: str
    url: str
    options: dict[str, Any]
    most_bytes: int = MOST_ANSWER_BYTES


@dataclass(frozen=True)
class Open:
    """A call that is answered in parts: ``lines`` of text, or raw bytes. Only a success is; others are whole.

    A flow has one of them at most: opening the next closes the one before.
    """

    call: Call
    lines: bool = False


@dataclass(frozen=True)
class Opened:
    response: httpx.Response
    parts: Iterator[Any] | AsyncIterator[Any]


@dataclass(frozen=True)
class Next:
    """The next part; None after the last."""

    opened: Opened


@dataclass(frozen=True)
class Pause:
    seconds: float


@dataclass(frozen=True)
class Work:
    """Something that blocks, as a disk does."""

    function: Callable[[], Any]


@dataclass(frozen=True)
class Emit(Generic[E]):
    """A value for who iterates."""

    value: E


Step: TypeAlias = Call | Open | Next | Pause | Work
Flow: TypeAlias = Generator[Step, Any, T]
"""Ends with a T."""
Stream: TypeAlias = Generator[Step | Emit[E], Any, T]
"""Gives any number of E on the way to a T."""


def call(method: str, url: str, most_bytes: int, **options: Any) -> Flow[httpx.Response]:
    """Raises AnswerTooLargeError."""
    response: httpx.Response = yield Call(method, url, options, most_bytes)
    return response


def opened(method: str, url: str, *, lines: bool = False, **options: Any) -> Flow[Opened]:
    stream: Opened = yield Open(Call(method, url, options), lines)
    return stream


def line(stream: Opened) -> Flow[str | None]:
    text: str | None = yield Next(stream)
    return text


def chunk(stream: Opened) -> Flow[bytes | None]:
    data: bytes | None = yield Next(stream)
    return data


def pause(seconds: float) -> Flow[None]:
    yield Pause(seconds)


def work(function: Callable[[], T]) -> Flow[T]:
    result: T = yield Work(function)
    return result
