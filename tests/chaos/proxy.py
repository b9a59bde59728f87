"""A TCP proxy that does to connections what networks do."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Iterator
from enum import StrEnum

from port_for import select_random

HOST = "127.0.0.1"
_CHUNK_BYTES = 1 << 16
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER of no seconds: close sends RST


class Mode(StrEnum):
    """``DOWN`` closes connections, ``RESET`` resets them; ``BLACK_HOLE`` keeps them and passes nothing on."""

    PASS = "pass"
    DOWN = "down"
    RESET = "reset"
    BLACK_HOLE = "black hole"


class Proxy:
    """In front of one server on this machine.

    Attributes:
        mode: for connections that are there, and new ones.
        latency_seconds: of each piece of an answer.
        cuts: how many answers to a COMMIT are still to be cut off; ``cut``: how many were.
    """

    def __init__(self, target_port: int) -> None:
        self.port = select_random()
        self.latency_seconds = 0.0
        self.cuts, self.cut = 0, 0
        self._target_port = target_port
        self._mode = Mode.PASS
        self._passing = asyncio.Event()
        self._cut_after: int | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)

    def start(self) -> None:
        self._passing.set()
        self._thread.start()
        self._run(self._listen())

    def stop(self) -> None:
        self._run(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def mode(self) -> Mode:
        return self._mode

    @mode.setter
    def mode(self, mode: Mode) -> None:
        self._run(self._change(mode))

    @contextlib.contextmanager
    def being(self, mode: Mode) -> Iterator[None]:
        self.mode = mode
        try:
            yield
        finally:
            self.mode = Mode.PASS

    def cut_after(self, size_bytes: int) -> None:
        """The next connection ends when so many bytes of answers have passed."""
        self._cut_after = size_bytes

    def _run(self, coroutine: object) -> None:
        asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(10)  # type: ignore[arg-type]

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._serve, HOST, self.port)

    async def _close(self) -> None:
        self._server.close()
        await self._drop()
        for task in asyncio.all_tasks():
            if task is not asyncio.current_task():
                task.cancel()

    async def _change(self, mode: Mode) -> None:
        self._mode = mode
        if mode is Mode.BLACK_HOLE:
            self._passing.clear()
            return
        if mode is not Mode.PASS:
            await self._drop()
        self._passing.set()

    async def _drop(self) -> None:
        for writer in list(self._writers):
            self._end(writer)
        await asyncio.sleep(0)

    def _end(self, writer: asyncio.StreamWriter) -> None:
        if self._mode is Mode.RESET:
            with contextlib.suppress(OSError):
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        there: asyncio.StreamWriter | None = None
        try:
            await self._passing.wait()
            if self._mode is not Mode.PASS:
                return
            answers, there = await asyncio.open_connection(HOST, self._target_port)
            self._writers.add(there)
            link = _Link(self._cut_after)
            self._cut_after = None
            both = [self._requests(reader, there, link), self._answers(answers, writer, link)]
            tasks = [asyncio.ensure_future(each) for each in both]
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            for each in (writer, there):
                if each is not None:
                    self._writers.discard(each)
                    self._end(each)

    async def _requests(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, link: _Link
    ) -> None:
        while data := await reader.read(_CHUNK_BYTES):
            await self._passing.wait()
            if self.cuts and b"COMMIT" in data:
                self.cuts -= 1
                self.cut += 1
                link.deaf = True
            writer.write(data)
            await writer.drain()

    async def _answers(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, link: _Link) -> None:
        while data := await reader.read(_CHUNK_BYTES):
            await self._passing.wait()
            if link.deaf:
                return  # the server has done it, and nobody is told
            if self.latency_seconds:
                await asyncio.sleep(self.latency_seconds)
            if link.left is not None:
                data = data[: link.left]
                link.left -= len(data)
            writer.write(data)
            await writer.drain()
            if link.left == 0:
                return


class _Link:
    """One connection. ``left``: bytes of answers until it is cut."""

    def __init__(self, left: int | None) -> None:
        self.left = left
        self.deaf = False
