"""A cheap HTTP client, so that the server is what is measured: plain sockets, requests made beforehand."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import re
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self

from bench.farm import HOST
from bench.figures import BenchError

_READ_BYTES = 1 << 16
_TIMEOUT_SECONDS = 30.0
_HEAD = re.compile(rb"HTTP/1\.1 (\d{3}) .*?\r\ncontent-length: (\d+)\r\n", re.IGNORECASE | re.DOTALL)


class Connection:
    """One kept-alive connection; one request at a time."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection((HOST, port), _TIMEOUT_SECONDS)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._socket.close()

    def exchange(self, request: bytes) -> tuple[int, bytes]:
        """(status, body)."""
        self._socket.sendall(request)
        data = b""
        while (end := data.find(b"\r\n\r\n")) < 0:
            data += self._more()
        match = _HEAD.match(data, 0, end + 2)
        if match is None:
            raise BenchError(f"not an answer with a length: {data[:200]!r}")
        length = end + 4 + int(match[2])
        while len(data) < length:
            data += self._more()
        return int(match[1]), data[end + 4 :]

    def send(self, request: bytes) -> None:
        self._socket.sendall(request)

    def drain(self) -> None:
        """Reads and drops what comes, until the other side or this one closes the connection."""
        self._socket.settimeout(None)
        with contextlib.suppress(OSError):
            while self._socket.recv(_READ_BYTES):
                pass

    def receive_into(self, request: bytes, buffer: memoryview) -> int:
        """The number of bytes of an answer's body, read through ``buffer`` and dropped."""
        self._socket.sendall(request)
        data = b""
        while (end := data.find(b"\r\n\r\n")) < 0:
            data += self._more()
        match = _HEAD.match(data, 0, end + 2)
        if match is None or match[1] != b"200":
            raise BenchError(f"not the file: {data[:200]!r}")
        length, got = int(match[2]), len(data) - end - 4
        while got < length:
            count = self._socket.recv_into(buffer)
            if not count:
                raise BenchError("the server closed the connection")
            got += count
        return length

    def _more(self) -> bytes:
        data = self._socket.recv(_READ_BYTES)
        if not data:
            raise BenchError("the server closed the connection")
        return data


def get(path: str, key: str | None = None) -> bytes:
    line = f"Authorization: Bearer {key}\r\n" if key else ""
    return f"GET {path} HTTP/1.1\r\nHost: {HOST}\r\n{line}\r\n".encode()


def post(path: str, document: Mapping[str, Any], **headers: str) -> bytes:
    """``headers`` with _ for -."""
    body = json.dumps(document).encode()
    lines = [f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items()]
    head = (
        f"POST {path} HTTP/1.1\r\nHost: {HOST}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n{''.join(lines)}\r\n"
    )
    return head.encode() + body


def closed_loop(
    port: int, requests: Sequence[bytes], *, expect: int, processes: int, connections: int
) -> float:
    """Answers per second to ``processes`` times ``connections`` clients, each of which waits for its own.

    Raises:
        BenchError: an answer had another status than ``expect``.
    """
    context = multiprocessing.get_context("spawn")
    barrier, spans = context.Barrier(processes), context.SimpleQueue()
    children = [
        context.Process(
            target=_hammer, args=(port, requests[number::processes], expect, connections, barrier, spans)
        )
        for number in range(processes)
    ]
    for child in children:
        child.start()
    for child in children:
        child.join()
    if any(child.exitcode for child in children):
        raise BenchError("a client failed; its traceback is above")
    found: list[tuple[float, float]] = [spans.get() for _ in children]
    return len(requests) / (max(end for _, end in found) - min(start for start, _ in found))


def _hammer(
    port: int, requests: Sequence[bytes], expect: int, connections: int, barrier: Any, spans: Any
) -> None:
    def run(mine: Sequence[bytes]) -> None:
        with Connection(port) as connection:
            for request in mine:
                status, body = connection.exchange(request)
                if status != expect:
                    raise BenchError(f"{status} instead of {expect}: {body[:500].decode()}")

    with ThreadPoolExecutor(connections) as pool:
        barrier.wait(_TIMEOUT_SECONDS)
        start = time.monotonic()  # the same clock in every process
        list(pool.map(run, [requests[number::connections] for number in range(connections)]))
    spans.put((start, time.monotonic()))


def open_loop(
    port: int, request: Callable[[int], bytes], *, expect: int, rate: float, count: int, connections: int
) -> list[float]:
    """Seconds to each of ``count`` answers, from when its request was due: a slow answer delays no other."""
    seconds = [0.0] * count
    ready = threading.Barrier(connections + 1)
    started = [0.0]

    def run(first: int) -> None:
        with Connection(port) as connection:
            mine = [(number, request(number)) for number in range(first, count, connections)]
            ready.wait(_TIMEOUT_SECONDS)
            ready.wait(_TIMEOUT_SECONDS)
            for number, data in mine:
                due = started[0] + number / rate
                time.sleep(max(0.0, due - time.monotonic()))
                status, body = connection.exchange(data)
                seconds[number] = time.monotonic() - due
                if status != expect:
                    raise BenchError(f"{status} instead of {expect}: {body[:500].decode()}")

    with ThreadPoolExecutor(connections) as pool:
        futures = [pool.submit(run, number) for number in range(connections)]
        ready.wait(_TIMEOUT_SECONDS)
        started[0] = time.monotonic() + 0.05
        ready.wait(_TIMEOUT_SECONDS)
        for future in futures:
            future.result()
    return seconds
