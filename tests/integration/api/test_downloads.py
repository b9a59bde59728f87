"""Plans and artifacts on their way out: ranges, conditions, digests."""

from __future__ import annotations

import base64
import hashlib
import os

import pytest

from tests.integration.api.world import Built, World, problem
from trtfarm.contract.digest import Digest

SIZE = 5_000_003


@pytest.fixture(scope="module")
def plan(world: World) -> Built:
    return world.built(os.urandom(SIZE))


def get(world: World, plan: Built, **headers: str) -> tuple[int, bytes, str | None]:
    answer = world.http.get(plan.content, headers={name.replace("_", "-"): v for name, v in headers.items()})
    assert int(answer.headers.get("content-length", len(answer.content))) == len(answer.content)
    return answer.status_code, answer.content, answer.headers.get("content-range")


def test_the_whole(world: World, plan: Built) -> None:
    answer = world.http.get(plan.content)
    assert (answer.status_code, answer.content) == (200, plan.data)
    sha = base64.b64encode(hashlib.sha256(plan.data).digest()).decode()
    expected = {
        "content-length": str(SIZE),
        "content-type": "application/octet-stream",
        "accept-ranges": "bytes",
        "etag": f'"{plan.digest.hex}"',
        "repr-digest": f"sha-256=:{sha}:",
        "cache-control": "private, max-age=31536000, immutable",
    }
    assert {name: answer.headers[name] for name in expected} == expected
    name = answer.headers["content-disposition"].partition('filename="')[2].rstrip('"')
    assert name.endswith(".plan")
    assert "cc-8.9" in name


@pytest.mark.parametrize(
    ("asked", "start", "end"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=0-99", 0, 100),
        ("bytes=2000000-4500000", 2_000_000, 4_500_001),
        ("bytes=4999999-", 4_999_999, SIZE),
        ("bytes=5000002-5000002", SIZE - 1, SIZE),
        ("bytes=-1", SIZE - 1, SIZE),
        ("bytes=-3000000", SIZE - 3_000_000, SIZE),
        ("bytes=4999990-99999999", 4_999_990, SIZE),
        ("Bytes=7-9", 7, 10),
    ],
)
def test_a_range(world: World, plan: Built, asked: str, start: int, end: int) -> None:
    assert get(world, plan, Range=asked) == (206, plan.data[start:end], f"bytes {start}-{end - 1}/{SIZE}")


@pytest.mark.parametrize(
    "asked",
    [
        "bytes=0-",
        f"bytes=-{SIZE}",
        "bytes=-99999999",
        "bytes=0-1,5-6",
        "bytes=" + ",".join(f"{n}-{n}" for n in range(500)),
        "bytes=-",
        "bytes=a-b",
        "items=0-1",
        "bytes 0-1",
        "nonsense",
        "bytes=0x1-2",
        "bytes=" + "9" * 5000 + "-",
        "bytes=-" + "9" * 5000,
    ],
)
def test_ranges_that_give_the_whole(world: World, plan: Built, asked: str) -> None:
    status, data, content_range = get(world, plan, Range=asked)
    assert status in {200, 206}
    assert data == plan.data
    assert content_range in {None, f"bytes 0-{SIZE - 1}/{SIZE}"}


@pytest.mark.parametrize("asked", [f"bytes={SIZE}-", "bytes=99999999-100000000", "bytes=-0", "bytes=9-5"])
def test_ranges_beyond_the_end(world: World, plan: Built, asked: str) -> None:
    answer = world.http.get(plan.content, headers={"Range": asked})
    document = problem(answer, 416, "RANGE_UNSATISFIABLE")
    assert answer.headers["content-range"] == f"bytes */{SIZE}"
    assert document["details"] == {"size_bytes": SIZE}


@pytest.mark.parametrize("tag", ['"{}"', 'W/"{}"', '"x", "{}"', "*"])
def test_a_copy_that_is_current(world: World, plan: Built, tag: str) -> None:
    answer = world.http.get(plan.content, headers={"If-None-Match": tag.format(plan.digest.hex)})
    assert (answer.status_code, answer.content) == (304, b"")
    assert answer.headers["etag"] == f'"{plan.digest.hex}"'


def test_a_copy_of_something_else(world: World, plan: Built) -> None:
    assert get(world, plan, If_None_Match='"x"')[:2] == (200, plan.data)


def test_resuming_a_copy(world: World, plan: Built) -> None:
    current, other = f'"{plan.digest.hex}"', '"x"'
    assert get(world, plan, Range="bytes=5-8", If_Range=current)[:2] == (206, plan.data[5:9])
    assert get(world, plan, Range="bytes=5-8", If_Range=other)[:2] == (200, plan.data)
    dated = "Wed, 21 Oct 2026 07:28:00 GMT"
    assert get(world, plan, Range="bytes=5-8", If_Range=dated)[:2] == (200, plan.data)


def test_head(world: World, plan: Built) -> None:
    whole = world.http.get(plan.content)
    for headers in ({}, {"Range": "bytes=5-8"}):
        head = world.http.head(plan.content, headers=headers)
        assert (head.status_code, head.content) == (200, b"")
        assert dict(head.headers) | {"date": ""} == dict(whole.headers) | {"date": ""}
    assert world.http.head(plan.content, headers={"If-None-Match": "*"}).status_code == 304


def test_a_plan_in_pieces_is_the_plan(world: World, plan: Built) -> None:
    pieces = [
        get(world, plan, Range=f"bytes={start}-{start + 999_998}")[1] for start in range(0, SIZE, 999_999)
    ]
    assert b"".join(pieces) == plan.data


def test_what_else_a_job_left(world: World, plan: Built) -> None:
    view = world.get(f"/v1/plans/{plan.digest}")
    assert view == plan.job["plan"]
    assert world.http.get(f"/v1/artifacts/{view['io']}").content == b"{}"
    assert world.http.get(f"/v1/artifacts/{view['log']}").content == b"built\n"
    assert world.http.head(f"/v1/artifacts/{view['log']}").headers["content-length"] == "6"


def test_what_is_not_there(world: World) -> None:
    digest = Digest.of_bytes(b"never built")
    problem(world.http.get(f"/v1/plans/{digest}"), 404, "NOT_FOUND")
    problem(world.http.get(f"/v1/plans/{digest}/content"), 404, "NOT_FOUND")
    problem(world.http.get(f"/v1/artifacts/{digest}"), 404, "BLOB_MISSING")


def test_a_log_is_no_plan(world: World, plan: Built) -> None:
    problem(world.http.get(f"/v1/plans/{plan.job['plan']['log']}/content"), 404, "NOT_FOUND")
