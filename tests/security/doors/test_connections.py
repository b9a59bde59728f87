"""What a stranger may cost before a request has begun, and after it was refused."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator

import httpx
import pytest

from tests.integration.api.world import World, client, problem
from tests.security.doors.raw import dial, ends, exchange, head, read
from trtfarm_api import connections, documents
from trtfarm_api.connections import HEAD_BYTES, HEADERS, GuardedProtocol

CHUNKED = "Transfer-Encoding: chunked"
SOON = 0.3  # the limits of time, for tests


def trickled(connection: socket.socket, part: bytes) -> bool:
    """Whether the other side ends it, though there is news again and again."""
    try:
        for _ in range(3000):
            connection.sendall(part)
            time.sleep(0.02)
    except OSError:
        return True
    return False


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(GuardedProtocol, "head_seconds", SOON)
    monkeypatch.setattr(GuardedProtocol, "unread_seconds", SOON)


def test_the_limits_are_short_enough() -> None:
    assert GuardedProtocol.head_seconds <= 10
    assert GuardedProtocol.unread_seconds <= 10
    assert documents.BODY_SECONDS <= 60
    assert HEAD_BYTES <= 64 << 10


@pytest.mark.parametrize(
    "start",
    [
        b"", b"G", b"GET /healthz", b"GET /healthz HTTP/1.1\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: y", b"\r\n", b"\r\n\r\n\r\n",
    ],
)  # fmt: skip
@pytest.mark.usefixtures("hasty")
def test_half_open_connections_end(locked: World, start: bytes) -> None:
    with dial(locked.url) as connection:
        connection.sendall(start)
        assert ends(connection) == b""


@pytest.mark.usefixtures("hasty")
def test_a_head_that_trickles(locked: World) -> None:
    """Each byte is news, and yet it ends."""
    with dial(locked.url) as connection:
        started = time.monotonic()
        connection.sendall(b"GET /healthz HTTP/1.1\r\n")
        assert trickled(connection, b"X")
        assert ends(connection) == b""
        assert time.monotonic() - started < 60


@pytest.mark.usefixtures("hasty")
def test_a_second_head_that_does_not_end(locked: World) -> None:
    """After an answer, a kept connection is no better; nor is one whose owner sends line ends for ever."""
    for rest in (b"GET /healthz HTTP/1.1\r\nX", b"\r\n"):
        with dial(locked.url) as connection:
            connection.sendall(head("GET", "/healthz"))
            assert read(connection).status == 200
            connection.sendall(rest)
            assert ends(connection) == b""


@pytest.mark.usefixtures("hasty")
def test_line_ends_for_ever(locked: World) -> None:
    with dial(locked.url) as connection:
        connection.sendall(head("GET", "/healthz"))
        assert read(connection).status == 200
        assert trickled(connection, b"\r\n")


@pytest.mark.usefixtures("hasty")
def test_a_whole_request_may_wait_for_its_answer(locked: World) -> None:
    """The limits are for heads: an answer takes as long as it takes, and connections are kept."""
    job_id = locked.job()["job_id"]
    key = locked.http.headers["authorization"]
    with dial(locked.url) as connection:
        connection.settimeout(4 * SOON)
        connection.sendall(head("GET", f"/v1/jobs/{job_id}/events", f"Authorization: {key}"))
        seen, quiet = b"", 0
        while quiet < 2:
            try:
                more = connection.recv(1 << 16)
            except TimeoutError:
                quiet += 1
                continue
            assert more, seen
            seen += more
        assert b"event: created" in seen or b"event:" in seen
    with dial(locked.url) as connection:
        for _ in range(3):
            connection.sendall(head("GET", "/healthz"))
            assert read(connection).status == 200
            time.sleep(2 * SOON)


@pytest.mark.parametrize(
    "request_",
    [
        pytest.param(head("GET", "/healthz", "X: " + "y" * 150_000), id="one long header"),
        pytest.param(head("GET", "/", *[f"X{n}: {'y' * 1000}" for n in range(60)]), id="long together"),
        pytest.param(head("GET", "/healthz", *[f"X{n}: y" for n in range(HEADERS + 1)]), id="many"),
        pytest.param(head("GET", "/healthz?" + "y" * 40_000), id="a long address"),
        pytest.param(b"GET /healthz HTTP/1.1\r\nX: " + b"y" * 100_000, id="no end in sight"),
        pytest.param(b"GET /healthz HTTP/1.1\r\n" + b"X: y\r\n" * 30_000, id="no end, in lines"),
        pytest.param(head("GET", "/healthz") + head("GET", "/", "X: " + "y" * 50_000), id="the second"),
    ],
)
def test_heads_that_are_too_large(locked: World, request_: bytes) -> None:
    with dial(locked.url) as connection:
        with contextlib.suppress(OSError):
            connection.sendall(request_)
        answers = ends(connection)
    assert answers.count(b"HTTP/1.1 200 ") < request_.count(b" HTTP/1.1\r\n")
    refusal = answers.rpartition(b"HTTP/1.1 ")[2]
    if refusal and not refusal.startswith(b"200 "):  # else it was closed with bytes on their way
        assert refusal.startswith(b"431 ")
        assert b"HEADERS_TOO_LARGE" in refusal


def test_a_head_for_ever(locked: World) -> None:
    """Megabytes of it are not kept."""
    with dial(locked.url) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\n")
        sent = 0
        with contextlib.suppress(OSError):
            while sent < 64 << 20:
                sent += connection.send(b"X: " + b"y" * 65_000)
        assert sent < 32 << 20  # what the sockets hold, and no more


def test_just_small_enough(locked: World) -> None:
    lines = [f"X{n}: {'y' * 250}" for n in range(HEADERS - 1)]
    assert exchange(locked.url, head("GET", "/healthz", *lines)).status == 200


@pytest.mark.usefixtures("hasty")
def test_a_body_that_nobody_wants(locked: World) -> None:
    """The answer comes at once, and the connection ends, however the rest trickles in."""
    for body in (["Content-Length: 1000000000"], [CHUNKED]):
        with dial(locked.url) as connection:
            connection.sendall(head("POST", "/v1/jobs", *body))
            answer = read(connection)
            assert (answer.status, answer.code) == (401, "AUTH_REQUIRED")
            assert ends(connection) == b""
        with dial(locked.url) as connection:
            connection.sendall(head("POST", "/v1/jobs", *body))
            assert read(connection).status == 401
            assert trickled(connection, b"1\r\nx\r\n")


@pytest.mark.usefixtures("hasty")
def test_a_refused_body_that_comes_whole(locked: World) -> None:
    """Its connection is good for another request."""
    with dial(locked.url) as connection:
        connection.sendall(head("POST", "/v1/jobs", "Content-Length: 5"))
        assert read(connection).status == 401
        connection.sendall(b"12345" + head("GET", "/healthz"))
        assert read(connection).status == 200


def test_a_document_that_does_not_come(locked: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "BODY_SECONDS", SOON)
    key = locked.http.headers["authorization"]
    lines = ["Content-Type: application/json", "Content-Length: 100", f"Authorization: {key}"]
    with dial(locked.url) as connection:
        connection.sendall(head("POST", "/v1/jobs", *lines) + b"{")
        answer = read(connection)
    assert (answer.status, answer.code) == (408, "BODY_TIMEOUT")


def test_a_document_that_trickles(locked: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "BODY_SECONDS", SOON)
    key = locked.http.headers["authorization"]
    lines = ["Content-Type: application/json", "Transfer-Encoding: chunked", f"Authorization: {key}"]
    with dial(locked.url) as connection:
        connection.sendall(head("POST", "/v1/jobs", *lines))
        connection.settimeout(0.02)
        for _ in range(3000):
            connection.sendall(b"1\r\n \r\n")
            try:
                data = connection.recv(1 << 16)
            except TimeoutError:
                continue
            assert b" 408 " in data
            break
        else:
            raise AssertionError("it is still waited for")


def test_more_connections_than_descriptors(locked: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those above the limit end as they come; those below are served."""
    assert connections.most_connections() > 16
    monkeypatch.setattr(connections, "most_connections", lambda: 8)
    with client(locked.url) as http:
        assert http.get("/healthz").status_code == 200
        many = [dial(locked.url) for _ in range(40)]
        try:
            open_ = [each for each in many if _is_open(each)]
            assert len(open_) < 8
            assert http.get("/healthz").status_code == 200
        finally:
            for each in many:
                each.close()


def _is_open(connection: socket.socket) -> bool:
    connection.settimeout(1)
    try:
        return connection.recv(1) != b""
    except TimeoutError:
        return True
    except ConnectionResetError:
        return False


@pytest.mark.parametrize(
    "request_",
    [
        pytest.param(
            head("POST", "/", "Content-Length: 6", CHUNKED) + b"0\r\n\r\nGET / HTTP/1.1\r\n\r\n",
            id="length and chunks",
        ),
        pytest.param(
            head("POST", "/healthz", "Content-Length: 5", "Content-Length: 6") + b"123456", id="two lengths"
        ),
        pytest.param(head("POST", "/healthz", "Content-Length: +5") + b"12345", id="a length with a sign"),
        pytest.param(head("POST", "/healthz", "Content-Length: 0x5") + b"12345", id="a length in hex"),
        pytest.param(head("POST", "/healthz", "Content-Length: -1"), id="a negative length"),
        pytest.param(head("POST", "/healthz", "Content-Length: 9" + "9" * 30), id="a length beyond all"),
        pytest.param(head("POST", "/healthz", "Transfer-Encoding: xchunked") + b"0\r\n\r\n", id="no chunks"),
        pytest.param(head("POST", "/healthz", "Transfer-Encoding : chunked") + b"0\r\n\r\n", id="a space"),
        pytest.param(head("POST", "/", CHUNKED) + b"-1\r\n\r\n", id="a chunk below 0"),
        pytest.param(head("POST", "/", CHUNKED) + b"f" * 20, id="a chunk beyond all"),
        pytest.param(head("GET", "/healthz", "X: a\r\n Host: evil.example"), id="a folded line"),
        pytest.param(head("GET", "/healthz", "X: a\nHost: evil.example"), id="a bare line feed"),
        pytest.param(head("GET", "/healthz", "X: a\x00b"), id="NUL"),
        pytest.param(b"GET /healthz HTTP/1.1\r\nHost: localhost\rX: y\r\n\r\n", id="a bare return"),
        pytest.param(b"GET /health z HTTP/1.1\r\nHost: localhost\r\n\r\n", id="a space in the address"),
        pytest.param(b"GET /healthz HTTP/9.9\r\nHost: localhost\r\n\r\n", id="another version"),
        pytest.param(b"GET /healthz\r\n\r\n", id="HTTP/0.9"),
        pytest.param(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", id="HTTP/2"),
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", id="TLS"),
        pytest.param(b"NONSENSE / HTTP/1.1\r\nHost: localhost\r\n\r\n", id="no method"),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("hasty")
def test_what_is_not_quite_http(locked: World, request_: bytes) -> None:
    """One refusal, with the headers of all answers, and the end: nothing is smuggled."""
    with dial(locked.url) as connection:
        connection.sendall(request_)
        answers = ends(connection)
    assert answers.count(b"HTTP/1.1 ") == bool(answers), answers
    if answers:  # else the head was whole and its answer not there yet
        assert answers[9:12] in {b"400", b"401", b"405", b"422"}, answers
        assert b"application/problem+json" in answers
        assert b"x-content-type-options: nosniff" in answers.lower()


@pytest.mark.parametrize("upgrade", ["websocket", "h2c", "TLS/1.0"])
def test_an_upgrade_is_no_way_in(locked: World, upgrade: str, caplog: pytest.LogCaptureFixture) -> None:
    lines = [
        "Connection: Upgrade",
        f"Upgrade: {upgrade}",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: eA==",
    ]
    for path, status in (("/v1/fleet", 401), ("/healthz", 200)):
        assert exchange(locked.url, head("GET", path, *lines)).status == status
    assert "pgrade" not in caplog.text


def test_pipelined_requests_are_each_looked_at(locked: World) -> None:
    key = locked.http.headers["authorization"]
    requests = [
        head("GET", "/v1/fleet", f"Authorization: {key}"),
        head("GET", "/v1/fleet"),
        head("GET", "/v1/fleet", f"Authorization: {key}", host="evil.example"),
        head("GET", "/healthz"),
    ]
    with dial(locked.url) as connection:
        connection.sendall(b"".join(requests))
        data = b""
        while data.count(b"HTTP/1.1 ") < 4 or not data.endswith(b'{"status":"ok"}'):
            more = connection.recv(1 << 16)
            assert more, data
            data += more
    found = [int(part[:3]) for part in data.split(b"HTTP/1.1 ")[1:]]
    assert found == [200, 401, 421, 200]


def test_headers_said_twice(locked: World) -> None:
    """Which of two counts is a matter of taste, and so of smuggling."""
    key = locked.http.headers["authorization"]
    for line in ("Authorization: Bearer x", f"Authorization: {key}"):
        answer = exchange(locked.url, head("GET", "/v1/fleet", f"Authorization: {key}", line))
        assert (answer.status, answer.code) == (422, "VALIDATION_ERROR")


def test_a_long_query(locked: World) -> None:
    problem(locked.http.get("/v1/jobs?" + "&".join(["state=x"] * 2000)), 414, "QUERY_TOO_LONG")
    answer = locked.http.get("/v1/jobs?" + "&".join(["state=x"] * 500))
    problem(answer, 422, "VALIDATION_ERROR")
    assert len(answer.content) < 20_000


def test_a_client_that_does_not_read(locked: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """It asks again and again, and leaves the answers lying."""
    monkeypatch.setattr(GuardedProtocol, "stall_seconds", SOON)
    with dial(locked.url) as connection:
        connection.settimeout(SOON)
        end = time.monotonic() + 60
        with pytest.raises(ConnectionError):
            ask_for_ever(connection, head("GET", "/healthz") * 100, end)


def ask_for_ever(connection: socket.socket, request: bytes, end: float) -> None:
    while time.monotonic() < end:
        with contextlib.suppress(TimeoutError):
            connection.send(request)


@pytest.fixture
def waiting(locked: World) -> Iterator[httpx.Client]:
    with client(locked.url) as http:
        yield http


def test_many_half_open_connections_hold_up_nobody(locked: World, waiting: httpx.Client) -> None:
    many = [dial(locked.url) for _ in range(100)]
    try:
        for each in many:
            each.sendall(b"GET /healthz HTTP/1.1\r\nX: ")
        assert waiting.get("/healthz").status_code == 200
    finally:
        for each in many:
            each.close()
