"""Takes the steps of flows: with a thread's time, or an event loop's."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator
from typing import Any, TypeVar

import anyio
import httpx
from anyio import to_thread

from trtfarm.sdk.bounded import Lines, Whole
from trtfarm.sdk.flow import Call, Emit, Next, Open, Opened, Pause, Stream, Work

T = TypeVar("T")
E = TypeVar("E")


class Runner:
    """Takes the steps in the caller's thread. Several threads may use one."""

    def __init__(self, http: httpx.Client) -> None:
        self._http = http

    def run(self, flow: Stream[Any, T]) -> T:
        """To the end; what it gives on the way is left out."""
        steps = self._steps(flow)
        while True:
            try:
                next(steps)
            except StopIteration as end:
                result: T = end.value
                return result

    def each(self, stream: Stream[E, Any]) -> Iterator[E]:
        yield from self._steps(stream)

    def _steps(self, flow: Stream[Any, T]) -> Generator[Any, None, T]:
        stream: Opened | None = None
        try:
            step = next(flow)
            while True:
                if isinstance(step, Emit):
                    yield step.value
                    step = flow.send(None)
                    continue
                try:
                    if isinstance(step, Open):
                        _close(stream)
                        result = stream = self._open(step)
                    else:
                        result = self._take(step)
                except Exception as error:  # noqa: BLE001 - the flow's affair
                    step = flow.throw(error)
                else:
                    step = flow.send(result)
        except StopIteration as end:
            value: T = end.value
            return value
        finally:
            flow.close()
            _close(stream)

    def _take(self, step: Call | Next | Pause | Work) -> Any:
        match step:
            case Call():
                with contextlib.closing(self._send(step)) as response:
                    return self._whole(response, step.most_bytes)
            case Next():
                return next(step.opened.parts, None)  # type: ignore[arg-type]
            case Pause():
                return time.sleep(step.seconds)
            case Work():
                return step.function()

    def _open(self, step: Open) -> Opened:
        response = self._send(step.call)
        if response.is_success:
            return Opened(response, self._lines(response) if step.lines else response.iter_raw())
        with contextlib.closing(response):
            return Opened(self._whole(response, step.call.most_bytes), iter(()))

    def _send(self, call: Call) -> httpx.Response:
        return self._http.send(self._http.build_request(call.method, call.url, **call.options), stream=True)

    @staticmethod
    def _whole(response: httpx.Response, most_bytes: int) -> httpx.Response:
        whole = Whole(response, most_bytes)
        for data in response.iter_bytes():
            whole.add(data)
        return whole.response()

    @staticmethod
    def _lines(response: httpx.Response) -> Iterator[str]:
        lines = Lines()
        for data in response.iter_bytes():
            yield from lines.add(data)


class AsyncRunner:
    """Takes the steps on the event loop; what blocks, in a thread beside it."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self._http = http

    async def run(self, flow: Stream[Any, T]) -> T:
        """To the end; what it gives on the way is left out."""
        ended: list[T] = []
        async for _ in self._steps(flow, ended):
            pass
        return ended[0]

    async def each(self, stream: Stream[E, Any]) -> AsyncIterator[E]:
        async for value in self._steps(stream, []):
            yield value

    async def _steps(self, flow: Stream[Any, T], ended: list[T]) -> AsyncGenerator[Any, None]:
        """An asynchronous generator cannot return: the flow's result goes into ``ended``."""
        stream: Opened | None = None
        try:
            step = next(flow)
            while True:
                if isinstance(step, Emit):
                    yield step.value
                    step = flow.send(None)
                    continue
                try:
                    if isinstance(step, Open):
                        await _aclose(stream)
                        result = stream = await self._open(step)
                    else:
                        result = await self._take(step)
                except Exception as error:  # noqa: BLE001 - the flow's affair
                    step = flow.throw(error)
                else:
                    step = flow.send(result)
        except StopIteration as end:
            ended.append(end.value)
        finally:
            flow.close()
            with anyio.CancelScope(shield=True):
                await _aclose(stream)

    async def _take(self, step: Call | Next | Pause | Work) -> Any:
        match step:
            case Call():
                async with contextlib.aclosing(await self._send(step)) as response:
                    return await self._whole(response, step.most_bytes)
            case Next():
                return await anext(step.opened.parts, None)  # type: ignore[arg-type]
            case Pause():
                return await anyio.sleep(step.seconds)
            case Work():
                return await to_thread.run_sync(step.function)

    async def _open(self, step: Open) -> Opened:
        response = await self._send(step.call)
        if response.is_success:
            return Opened(response, self._lines(response) if step.lines else response.aiter_raw())
        async with contextlib.aclosing(response):
            return Opened(await self._whole(response, step.call.most_bytes), iter(()))

    async def _send(self, call: Call) -> httpx.Response:
        options = _off_the_loop(call.options)
        return await self._http.send(self._http.build_request(call.method, call.url, **options), stream=True)

    @staticmethod
    async def _whole(response: httpx.Response, most_bytes: int) -> httpx.Response:
        whole = Whole(response, most_bytes)
        async for data in response.aiter_bytes():
            whole.add(data)
        return whole.response()

    @staticmethod
    async def _lines(response: httpx.Response) -> AsyncIterator[str]:
        lines = Lines()
        async for data in response.aiter_bytes():
            for line in lines.add(data):
                yield line


def _close(stream: Opened | None) -> None:
    if stream is not None:
        stream.response.close()


async def _aclose(stream: Opened | None) -> None:
    if stream is not None:
        await stream.response.aclose()


def _off_the_loop(options: dict[str, Any]) -> dict[str, Any]:
    content = options.get("content")
    return {**options, "content": _read(content)} if isinstance(content, Iterator) else options


async def _read(pieces: Iterator[bytes]) -> AsyncIterator[bytes]:
    while (piece := await to_thread.run_sync(next, pieces, None)) is not None:
        yield piece
