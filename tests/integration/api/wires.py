"""Connections that break: half-sent requests, and lines that are cut."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from typing import Self
from urllib.parse import urlsplit


def connect(url: str) -> socket.socket:
    parts = urlsplit(url)
    assert parts.hostname
    assert parts.port
    return socket.create_connection((parts.hostname, parts.port), timeout=10)


def line_to(url: str, break_after: int = 0, breaks: int = 0) -> Line:
    parts = urlsplit(url)
    return Line(parts.hostname or "", parts.port or 80, break_after, breaks)


def reset(connection: socket.socket) -> None:
    """Breaks the connection as a crash does, without goodbye."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


@contextlib.contextmanager
def half_sent(url: str, upload_id: str, data: bytes, sent: int, offset: int = 0) -> Iterator[None]:
    """A PATCH of ``data`` of which only the first bytes were sent; broken off at the end of the block."""
    with connect(url) as connection:
        head = (
            f"PATCH /v1/uploads/{upload_id} HTTP/1.1\r\nHost: localhost\r\nUpload-Offset: {offset}\r\n"
            f"Content-Length: {len(data)}\r\nExpect: 100-continue\r\n\r\n"
        )
        connection.sendall(head.encode())
        assert connection.recv(100).startswith(b"HTTP/1.1 100")  # the upload is open: nobody else may write
        connection.sendall(data[:sent])
        try:
            yield
        finally:
            reset(connection)


def pump(source: socket.socket, sink: socket.socket, limit: int | None = None) -> None:
    """Passes bytes on until one side ends; after ``limit`` bytes both do, in the middle of whatever it is."""
    with contextlib.suppress(OSError):
        while data := source.recv(1 << 16 if limit is None else min(limit, 1 << 16)):
            sink.sendall(data)
            if limit is not None:
                limit -= len(data)
                if limit == 0:
                    source.shutdown(socket.SHUT_RDWR)
                    break
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_RDWR)


class Line:
    """A line to a server that can be cut and mended; its address stays.

    The first ``breaks`` connections end after ``break_after`` bytes of answers.
    """

    def __init__(self, host: str, port: int, break_after: int = 0, breaks: int = 0) -> None:
        self._server = (host, port)
        self._break_after, self._breaks = break_after, breaks
        self.connections = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._open: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._listen()

    def _listen(self) -> None:
        self._start(self._accept, self._listener)

    def _start(self, target: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                down, _ = listener.accept()
                up = socket.create_connection(self._server)
                self._open += [down, up]
                self.connections += 1
                limit = self._break_after if self.connections <= self._breaks else None
                self._start(pump, down, up)
                self._start(pump, up, down, limit)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.cut()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def cut(self) -> None:
        """Nobody answers at the address any more, and whoever was connected no longer is."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for end in self._open:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        for end in self._open:
            end.close()
        self._open, self._threads = [], []

    def mend(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self._listen()
