"""HTTP by hand, for requests that no client would send."""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

SECONDS = 30


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def code(self) -> str:
        return str(json.loads(self.body)["code"])

    @property
    def document(self) -> dict[str, Any]:
        return dict(json.loads(self.body))


def dial(url: str) -> socket.socket:
    parts = urlsplit(url)
    assert parts.hostname in {"127.0.0.1", "::1"}
    return socket.create_connection((parts.hostname, parts.port or 80), SECONDS)


def exchange(url: str, request: bytes) -> Answer:
    """The first answer on a connection of its own."""
    with dial(url) as connection:
        connection.sendall(request)
        return read(connection, has_body=not request.startswith(b"HEAD "))


def read(connection: socket.socket, *, has_body: bool = True) -> Answer:
    data = b""
    while b"\r\n\r\n" not in data:
        data += _more(connection, data)
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    while has_body and len(body) < int(headers.get("content-length", 0)):
        body += _more(connection, body)
    return Answer(int(first.split()[1]), headers, body)


def _more(connection: socket.socket, before: bytes) -> bytes:
    data = connection.recv(1 << 16)
    assert data, f"closed after {before[:300]!r}"
    return data


def ends(connection: socket.socket) -> bytes:
    """What comes until the other side ends the connection, which must be soon."""
    data = b""
    try:
        while more := connection.recv(1 << 16):
            data += more
    except ConnectionResetError:
        pass
    return data


def head(method: str, path: str, *lines: str, host: str | None = "localhost") -> bytes:
    told = [] if host is None else [f"Host: {host}"]
    return "\r\n".join([f"{method} {path} HTTP/1.1", *told, *lines, "", ""]).encode("latin-1")
