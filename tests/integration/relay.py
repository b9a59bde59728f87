"""A wire to PostgreSQL that can go silent, or break just when it carries a COMMIT."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

from sqlalchemy import make_url


@dataclass
class Relay:
    """Attributes:
    silent: takes bytes and passes none on, as a stopped server would.
    cut_commit_of: passes on the COMMIT of the next transaction that says so, and breaks the connection
        instead of bringing the answer.
    down: refuses and breaks connections.
    """

    host: str
    port: int
    listener: socket.socket = field(default_factory=lambda: socket.create_server(("127.0.0.1", 0)))
    silent: threading.Event = field(default_factory=threading.Event)
    heard: threading.Event = field(default_factory=threading.Event)
    cut_commit_of: bytes | None = None
    down: bool = False
    cuts: int = 0

    @property
    def address(self) -> tuple[str, int]:
        address: tuple[str, int] = self.listener.getsockname()
        return address

    def hush(self) -> None:
        self.heard.clear()
        self.silent.set()

    def speak(self) -> None:
        self.silent.clear()
        self.heard.set()

    def accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self.listener.accept()
                if self.down:
                    client.close()
                    continue
                server = socket.create_connection((self.host, self.port))
                wire = _Wire(self, client, server)
                for way in (wire.forth, wire.back):
                    threading.Thread(target=way, daemon=True).start()


@dataclass
class _Wire:
    relay: Relay
    client: socket.socket
    server: socket.socket
    marked: bool = False
    cut: bool = False

    def forth(self) -> None:
        with contextlib.suppress(OSError):
            while data := self.client.recv(65536):
                self.pause()
                if self.relay.cut_commit_of and self.relay.cut_commit_of in data:
                    self.relay.cut_commit_of, self.marked = None, True
                self.cut = self.marked and b"COMMIT" in data
                self.server.sendall(data)
        self.close()

    def back(self) -> None:
        with contextlib.suppress(OSError):
            while data := self.server.recv(65536):
                if self.cut or self.relay.down:  # the answer is here, so the server has committed
                    self.relay.cuts += self.cut
                    break
                self.pause()
                self.client.sendall(data)
        self.close()

    def pause(self) -> None:
        if self.relay.silent.is_set():
            self.relay.heard.wait()

    def close(self) -> None:
        for end in (self.client, self.server):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


@contextlib.contextmanager
def relay(database_url: str) -> Iterator[tuple[str, Relay]]:
    """The URL of the same database through the wire, and the wire."""
    url = make_url(database_url)
    wire = Relay(url.host or "127.0.0.1", url.port or 5432)
    wire.heard.set()
    threading.Thread(target=wire.accept, daemon=True).start()
    host, port = wire.address
    try:
        yield url.set(host=host, port=port).render_as_string(hide_password=False), wire
    finally:
        wire.speak()
        wire.listener.shutdown(socket.SHUT_RDWR)
        wire.listener.close()
