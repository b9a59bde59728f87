"""Connections that break: half-sent requests, and a proxy that cuts its line."""

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


def reset(connection: socket.socket) -> None:
    """Breaks the connection as a crash does, without goodbye."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


@contextlib.contextmanager
def half_sent(url: str, upload_id: str, data: bytes, sent: int, offset: int = 0) -> Iterator[None]:
    """A PATCH of ``data`` of which only the first bytes were sent; broken off at the end of the block."""
    with connect(url) as connection:
        head = (
            f"PATCH /v1/uploads/{upload_id} HTTP/1.1\r\nHost: farm\r\nUpload-Offset: {offset}\r\n"
            f"Content-Length: {len(data)}\r\nExpect: 100-continue\r\n\r\n"
        )
        connection.sendall(head.encode())
        assert connection.recv(100).startswith(b"HTTP/1.1 100")  # the upload is open: nobody else may write
        connection.sendall(data[:sent])
        try:
            yield
        finally:
            reset(connection)


class CuttingProxy:
    """Passes bytes on to a server, and resets the connection after ``cut_after`` bytes of its answers.

    ``cuts`` connections are cut, the ones after that are not.
    """

    def __init__(self, url: str, cut_after: int, cuts: int = 1) -> None:
        self._url, self._cut_after, self._cuts = url, cut_after, cuts
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.connections = 0
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._accept, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()

    def _accept(self) -> None:
        workers = []
        with contextlib.suppress(OSError):
            while True:
                down, _ = self._listener.accept()
                self.connections += 1
                cut = self._cut_after if self.connections <= self._cuts else None
                up = connect(self._url)
                for worker in (
                    threading.Thread(target=self._pump, args=(down, up, None), daemon=True),
                    threading.Thread(target=self._pump, args=(up, down, cut), daemon=True),
                ):
                    worker.start()
                    workers.append((worker, down, up))
        for worker, down, up in workers:
            for end in (down, up):
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
            worker.join()
            down.close()
            up.close()

    @staticmethod
    def _pump(source: socket.socket, sink: socket.socket, cut: int | None) -> None:
        passed = 0
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                if cut is not None and passed + len(data) >= cut:
                    sink.sendall(data[: cut - passed])
                    reset(sink)
                    return
                sink.sendall(data)
                passed += len(data)
            sink.shutdown(socket.SHUT_WR)


class Line:
    """A line to a server that can be cut and mended; its address stays."""

    def __init__(self, host: str, port: int) -> None:
        self._server = (host, port)
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
                self._start(CuttingProxy._pump, down, up, None)
                self._start(CuttingProxy._pump, up, down, None)

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
