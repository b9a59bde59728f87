"""Answers of any size end, and a download has the size that was announced."""

from __future__ import annotations

import asyncio
import gzip
import itertools
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.security.liar import WANTED, Liar, Reply, digest, plan
from trtfarm.errors import AnswerMismatchError, AnswerTooLargeError, LocalFileError, TrtFarmError
from trtfarm.sdk import bounded, flow
from trtfarm.sdk.aio import AsyncFarmClient
from trtfarm.sdk.bounded import Lines
from trtfarm.sdk.client import FarmClient

SMALL = 100_000
PLAN = plan(WANTED)
CONTENT = f"GET /v1/plans/{PLAN.digest}/content"


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a test need not send what a machine could not hold."""
    monkeypatch.setattr(flow.Call.__init__, "__defaults__", (SMALL,))
    monkeypatch.setattr("trtfarm.sdk.calls.request.__kwdefaults__", {"tries": 1, "most_bytes": SMALL})
    monkeypatch.setattr("trtfarm.sdk.calls.MOST_ARTIFACT_BYTES", SMALL)
    monkeypatch.setattr(Lines.__init__, "__defaults__", (SMALL,))


def endless() -> Iterator[bytes]:
    return itertools.repeat(b" " * 10_000)


JSON = {"Content-Type": "application/json"}
EVENTS = {"Content-Type": "text/event-stream", "Content-Length": ""}
Ask = Callable[[Any], Any]


class Flood(NamedTuple):
    route: str
    reply: Callable[[], Reply]
    ask: Ask


FLOODS = {
    "announced": Flood(
        "GET /v1/fleet", lambda: Reply(headers={"Content-Length": str(10**13)}), lambda sdk: sdk.fleet()
    ),
    "without an end": Flood(
        "GET /v1/fleet", lambda: Reply(headers={**JSON, "Content-Length": ""}, parts=endless()),
        lambda sdk: sdk.fleet(),
    ),
    "packed": Flood(
        "GET /v1/fleet", lambda: Reply(gzip.compress(bytes(10**7)), headers={"Content-Encoding": "gzip"}),
        lambda sdk: sdk.fleet(),
    ),
    "an error": Flood(
        "GET /v1/fleet", lambda: Reply(status=400, headers={**JSON, "Content-Length": ""}, parts=endless()),
        lambda sdk: sdk.fleet(),
    ),
    "a log": Flood(
        "GET /v1/jobs/1/log", lambda: Reply(headers={"Content-Length": ""}, parts=endless()),
        lambda sdk: sdk.log("1"),
    ),
    "an artifact": Flood(
        f"GET /v1/artifacts/{digest(WANTED)}", lambda: Reply(headers={"Content-Length": ""}, parts=endless()),
        lambda sdk: sdk.artifact(digest(WANTED)),
    ),
    "a line of events": Flood(
        "GET /v1/jobs/1/events", lambda: Reply(b"data: ", headers=EVENTS, parts=endless()),
        lambda sdk: sdk.wait("1"),
    ),
    "an error instead of events": Flood(
        "GET /v1/jobs/1/events", lambda: Reply(status=400, headers={"Content-Length": ""}, parts=endless()),
        lambda sdk: sdk.wait("1"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("flood", FLOODS.values(), ids=FLOODS)
def test_an_answer_ends(liar: Liar, flood: Flood) -> None:
    liar.routes[flood.route] = flood.reply

    async def in_a_loop() -> None:
        async with AsyncFarmClient(liar.url) as sdk:
            await flood.ask(sdk)

    with FarmClient(liar.url) as sdk, pytest.raises(AnswerTooLargeError):
        flood.ask(sdk)
    with pytest.raises(AnswerTooLargeError):
        asyncio.run(in_a_loop())


def test_lines_are_those_of_events() -> None:
    lines = Lines(10)
    assert list(lines.add(b"a\r\n\nb")) == ["a", ""]
    assert list(lines.add(b"c\xe2\x80\xa8d")) == [], "a separator of lines in JSON ends none"
    assert list(lines.add(b"\xff\n")) == ["bc\u2028d\ufffd"]
    with pytest.raises(AnswerTooLargeError):
        list(lines.add(b"x" * 11))
    assert bounded.MOST_LINE_BYTES >= 2**20


# --- downloads ---


@pytest.mark.parametrize("known", [True, False])
def test_a_download_ends_where_it_should(liar: Liar, sdk: FarmClient, tmp_path: Path, known: bool) -> None:
    """``known``: the plan's view is; else it is asked for, if the answer does not tell its length."""
    liar.holds(PLAN, WANTED)
    liar.routes[CONTENT] = lambda: Reply(WANTED, headers={"Content-Length": ""}, parts=endless())
    file = tmp_path / "model.plan"
    with pytest.raises(AnswerMismatchError, match="more came"):
        sdk.pull(PLAN if known else PLAN.digest, file)
    assert list(tmp_path.iterdir()) == []
    liar.routes[CONTENT] = Reply(WANTED, headers={"Content-Length": ""}, parts=iter(()))
    assert sdk.pull(PLAN if known else PLAN.digest, file).read_bytes() == WANTED


def test_another_length_is_not_the_plans(liar: Liar, sdk: FarmClient, tmp_path: Path) -> None:
    liar.routes[CONTENT] = Reply(WANTED + b"!", headers={"Content-Length": str(10**12)})
    with pytest.raises(AnswerMismatchError, match=str(10**12)):
        sdk.pull(PLAN, tmp_path / "model.plan")
    assert list(tmp_path.iterdir()) == []


def test_more_than_the_disk_takes_is_not_begun(liar: Liar, sdk: FarmClient, tmp_path: Path) -> None:
    length = str(shutil.disk_usage(tmp_path).total + 1)
    liar.routes[CONTENT] = Reply(WANTED, headers={"Content-Length": length})
    with pytest.raises(LocalFileError, match="to come"):
        sdk.pull(PLAN.digest, tmp_path / "model.plan")
    assert list(tmp_path.iterdir()) == []


def test_what_is_packed_on_the_way_is_not_asked_for(liar: Liar, sdk: FarmClient, tmp_path: Path) -> None:
    liar.holds(PLAN, WANTED)
    sdk.pull(PLAN, tmp_path / "model.plan")
    assert liar.seen_headers[-1]["Accept-Encoding"] == "identity"


def test_a_partial_file_of_another_length_is_not_gone_on_from(
    liar: Liar, sdk: FarmClient, tmp_path: Path
) -> None:
    """A server that answers another range than was asked for: the digest decides."""
    file = tmp_path / "model.plan"
    partial = tmp_path / f".model.plan.{PLAN.digest.short}.part"
    partial.write_bytes(WANTED[:5])
    partial.chmod(0o600)
    half = os.urandom(len(WANTED) - 5)
    liar.routes[CONTENT] = Reply(half, 206)
    with pytest.raises(TrtFarmError) as caught:
        sdk.pull(PLAN, file)
    assert caught.value.code == "BLOB_CORRUPT"
    liar.routes[CONTENT] = Reply(WANTED)
    assert sdk.pull(PLAN, file).read_bytes() == WANTED
