"""The proxy does what it says; without that, faults would be made that never happen."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from tests.chaos.proxy import HOST, Mode, Proxy


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    """In front of a server that says everything again."""
    server = socket.create_server((HOST, 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            threading.Thread(target=echo, args=(connection,), daemon=True).start()

    def echo(connection: socket.socket) -> None:
        with connection:
            try:
                while data := connection.recv(1 << 16):
                    connection.sendall(data)
            except OSError:
                return

    threading.Thread(target=serve, daemon=True).start()
    proxy = Proxy(server.getsockname()[1])
    proxy.start()
    yield proxy
    proxy.stop()
    server.close()


def connect(proxy: Proxy) -> socket.socket:
    connection = socket.create_connection((HOST, proxy.port), timeout=5)
    connection.settimeout(5)
    return connection


def said(connection: socket.socket, text: bytes) -> bytes:
    connection.sendall(text)
    return connection.recv(1 << 16)


def test_it_passes(proxy: Proxy) -> None:
    with connect(proxy) as one, connect(proxy) as two:
        assert said(one, b"one") == b"one"
        assert said(two, b"two") == b"two"
        proxy.latency_seconds = 0.2
        began = time.monotonic()
        assert said(one, b"slow") == b"slow"
        assert time.monotonic() - began >= 0.2


def test_down_and_back(proxy: Proxy) -> None:
    with connect(proxy) as connection:
        assert said(connection, b"a") == b"a"
        with proxy.being(Mode.DOWN):
            with pytest.raises(ConnectionError):
                raise ConnectionError if connection.recv(1) == b"" else AssertionError
            with connect(proxy) as other:
                assert other.recv(1) == b""
    with connect(proxy) as connection:
        assert said(connection, b"b") == b"b"


def test_reset(proxy: Proxy) -> None:
    with connect(proxy) as connection:
        assert said(connection, b"a") == b"a"
        with proxy.being(Mode.RESET), pytest.raises(ConnectionResetError):
            connection.recv(1)


def test_a_black_hole_keeps_what_was_said(proxy: Proxy) -> None:
    with connect(proxy) as connection:
        connection.settimeout(0.3)
        with proxy.being(Mode.BLACK_HOLE), pytest.raises(TimeoutError):
            said(connection, b"lost")
        connection.settimeout(5)
        assert connection.recv(10) == b"lost"


def test_the_answer_to_a_commit_is_cut(proxy: Proxy) -> None:
    with connect(proxy) as connection:
        assert said(connection, b"BEGIN") == b"BEGIN"
        proxy.cuts = 1
        assert said(connection, b"BEGIN") == b"BEGIN"
        assert said(connection, b"COMMIT") == b""
    assert (proxy.cuts, proxy.cut) == (0, 1)


def test_a_connection_ends_after_so_many_bytes(proxy: Proxy) -> None:
    proxy.cut_after(5)
    with connect(proxy) as connection:
        assert said(connection, b"abc") == b"abc"
        assert said(connection, b"defg") == b"de"
        assert connection.recv(1) == b""
    with connect(proxy) as connection:
        assert said(connection, b"abcdefgh") == b"abcdefgh"
