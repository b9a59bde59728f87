"""Bodies that are no JSON documents, and addresses that are no addresses."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.integration.api.wires import connect
from tests.integration.api.world import World, problem

JSON = {"Content-Type": "application/json"}
ROUTES = ("/v1/jobs", "/v1/uploads")
DIGEST = "sha256:" + "0" * 64
JOB = f'{{"model": "{DIGEST}", "target": {{"gpu": "cc-8.9"}}, %s}}'


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"nonsense",
        b'{"a": 1,}',
        b"{'a': 1}",
        b"\xff\xfe{}",
        '{"a": 1}'.encode("utf-16"),
        b'{"a": "\xed\xa0\x80"}',
        b'{"a": NaN}',
        b'{"a": -Infinity}',
        b'{"a": 1, "a": 1}',
        b'{"a": {"b": 1, "b": 2}}',
        b'{"a": "\x00"}',
        b"[" * 100_000,
        b'{"a": ' * 50_000 + b"1" + b"}" * 50_000,
        b'{"a": ' + b"9" * 5000 + b"}",
        b"{} {}",
        b"\xef\xbb\xbf{}",
    ],
    ids=lambda body: repr(body[:24]),
)
def test_what_is_not_json(world: World, route: str, body: bytes) -> None:
    problem(world.http.post(route, content=body, headers=JSON), 400, "INVALID_JSON")


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize(
    "body", [rb'{"a": "\u0000"}', rb'{"a": "\ud800"}', rb'{"\ud800": 1}', rb'{"a": [{"b\u0000": 1}]}']
)
def test_text_that_no_database_takes(world: World, route: str, body: bytes) -> None:
    problem(world.http.post(route, content=body, headers=JSON), 422, "VALIDATION_ERROR")


def test_escaped_text_that_is_fine(world: World) -> None:
    """A whole pair of surrogates, and a backslash before something that only looks like an escape."""
    for text in (r"\ud83d\ude00", r"\\u0000", r"\u00e9"):
        body = JOB % f'"profiles": [{{"{text}": {{"min": [1], "opt": [1], "max": [1]}}}}]'
        problem(world.http.post("/v1/jobs", content=body.encode(), headers=JSON), 404, "MODEL_NOT_FOUND")


@pytest.mark.parametrize("body", [b"null", b"[]", b"3", b'"x"', b"{}", b""])
def test_json_of_another_kind(world: World, body: bytes) -> None:
    problem(world.http.post("/v1/jobs", content=body, headers=JSON), 422, "VALIDATION_ERROR")


def test_a_field_is_named(world: World) -> None:
    body = JOB % '"config": {"wörkspace": 1}'
    document = problem(world.http.post("/v1/jobs", content=body.encode(), headers=JSON), 422, "UNKNOWN_FIELD")
    assert document["detail"] == "There is no field 'config.wörkspace'."
    assert document["details"]["errors"][0]["field"] == "body.config.wörkspace"


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", ""]
)
def test_another_content_type(world: World, route: str, kind: str) -> None:
    """As `curl -d` sends it without -H: the answer says what is missing."""
    headers = {"Content-Type": kind} if kind else {}
    document = problem(
        world.http.post(route, content=b'{"a": 1}', headers=headers), 415, "UNSUPPORTED_MEDIA_TYPE"
    )
    assert "Content-Type: application/json" in document["detail"]


@pytest.mark.parametrize("kind", ["application/json; charset=utf-8", "Application/JSON"])
def test_other_spellings_of_json(world: World, kind: str) -> None:
    body = (JOB % '"priority": 1').encode()
    answer = world.http.post("/v1/jobs", content=body, headers={"Content-Type": kind})
    problem(answer, 404, "MODEL_NOT_FOUND")


def padded(size: int) -> bytes:
    body = (JOB % '"priority": 1').encode()
    return body + b" " * (size - len(body))


@pytest.mark.parametrize("route", ROUTES)
def test_a_body_that_is_too_large(world: World, route: str) -> None:
    def chunks() -> Iterator[bytes]:
        yield from [padded(1000)] * 5000

    for content in (padded((1 << 20) + 1), padded(20 << 20), chunks()):
        problem(world.http.post(route, content=content, headers=JSON), 413, "BODY_TOO_LARGE")


def test_a_body_of_just_the_size(world: World) -> None:
    problem(world.http.post("/v1/jobs", content=padded(1 << 20), headers=JSON), 404, "MODEL_NOT_FOUND")


def test_a_large_body_where_none_is_expected(world: World) -> None:
    job_id = world.job()["job_id"]
    answer = world.http.post(f"/v1/jobs/{job_id}/cancel", content=bytes(3 << 20))
    assert answer.status_code in {200, 413}


@pytest.mark.parametrize(
    "address",
    [
        "/v1/jobs/%00",
        "/v1/jobs/a%00b/events",
        "/v1/jobs/%00/log",
        "/v1/uploads/%00",
        "/v1/jobs?gpu=%00",
        "/v1/jobs?model=%00",
        "/v1/plans?gpu=a%00",
        "/v1/plans?runtime=%00",
    ],
)
def test_nul_in_an_address(world: World, address: str) -> None:
    problem(world.http.get(address), 400, "INVALID_PATH")


@pytest.mark.parametrize(
    "path",
    [
        "/v1/jobs/..%2f..%2fetc%2fpasswd",
        "/v1/jobs/%2e%2e",
        "/v1/jobs/%252e%252e",
        "/v1/jobs/..%5c..%5cx",
        "/v1/uploads/..%2f..%2fx",
        "/v1/uploads/%2e%2e%2fstaging",
        "/v1/jobs/%c0%ae%c0%ae",
        "/v1/jobs/%ed%a0%80",
        "/v1/jobs/" + "x" * 5000,
        "/v1/jobs/%F0%9F%92%A5",
    ],
)
def test_strange_paths(world: World, path: str) -> None:
    with connect(world.url) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        head, _, body = b"".join(iter(lambda: connection.recv(65536), b"")).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 404 "), head
    assert json.loads(body)["code"] == "NOT_FOUND"


@pytest.mark.parametrize("digest", ["sha256:xyz", "sha256:" + "A" * 64, "%2e%2e", "md5-0", "sha256:"])
@pytest.mark.parametrize(
    "route", ["/v1/models/{}", "/v1/plans/{}", "/v1/plans/{}/content", "/v1/artifacts/{}"]
)
def test_what_is_no_digest(world: World, route: str, digest: str) -> None:
    answer = world.http.get(route.format(digest))
    if digest == "%2e%2e":
        assert answer.status_code in {404, 422}
    else:
        named = "models" in route and not digest.startswith("sha256:")
        problem(answer, *((404, "NAME_NOT_FOUND") if named else (422, "INVALID_DIGEST")))
