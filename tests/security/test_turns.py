"""Slow uploads of one key cost the others neither an answer nor more than their turn."""

from __future__ import annotations

import os
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx
import psutil
import pytest

from tests.integration.api.world import World, client, onnx_model, open_farm, problem, serving
from tests.security import hostile_models
from tests.unit.odd_inspector import odd
from trtfarm.contract.digest import Digest
from trtfarm.contract.jobs import Scope
from trtfarm.errors import TooManyUploadsError
from trtfarm.inspection.pool import InspectionPool
from trtfarm_api.services import uploads
from trtfarm_api.turns import Turns
from trtfarm_db import schema
from trtfarm_db.repositories.keys import KeyRepository

THREADS = 40  # that all routes share
PATIENCE_SECONDS = 60


@pytest.fixture
def pool() -> Iterator[InspectionPool]:
    with InspectionPool(module="tests.unit.odd_inspector", processes=2) as made:
        yield made


@pytest.fixture
def large_from_1000_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "_LARGE_BYTES", 1000)


@pytest.fixture
def few_may_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "_WAITING", 3)


@pytest.fixture
def world(tmp_path: Path, pool: InspectionPool) -> Iterator[World]:
    """Its own requests are an administrator's."""
    farm = open_farm(f"sqlite:///{tmp_path / 'farm.db'}", tmp_path, pool, require_keys=True)
    schema.upgrade(farm.database)
    with farm.database.transaction() as connection:
        _, key = KeyRepository(connection).create("admin", Scope.ADMIN)
    try:
        with serving(farm) as url, client(url, key) as http:
            yield World(farm, url, http)
            pool.close()  # what still hangs
    finally:
        farm.database.close()


Caller = Callable[[str], World]


@pytest.fixture
def caller(world: World) -> Iterator[Caller]:
    """The farm as somebody else sees it."""
    opened = []

    def make(name: str) -> World:
        with world.farm.database.transaction() as connection:
            _, key = KeyRepository(connection).create(name, Scope.SUBMIT)
        limits = httpx.Limits(max_connections=None)
        http = httpx.Client(
            base_url=world.url,
            headers={"Authorization": f"Bearer {key}"},
            timeout=PATIENCE_SECONDS,
            trust_env=False,
            limits=limits,
        )
        opened.append(http)
        return World(world.farm, world.url, http)

    yield make
    for http in opened:
        http.close()


def _until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def _hanging(
    world: World, who: World, number: int, threads: ThreadPoolExecutor, more: str = ""
) -> list[Future[object]]:
    """Uploads of models that never end, all of which have arrived."""
    before = set(world.staged())
    models = [odd(f"hang:{id(who)} {each}{more}") for each in range(number)]
    sent = [threads.submit(who.upload, data) for data in models]
    sizes = sorted(map(len, models))
    _until(lambda: sorted(size for name, size in world.staged().items() if name not in before) == sizes)
    return sent


def test_other_routes_answer_while_every_inspector_hangs(world: World, caller: Caller) -> None:
    with ThreadPoolExecutor(THREADS + 20) as threads:
        one, other = caller("one"), caller("other")
        sent = _hanging(world, one, THREADS + 10, threads) + _hanging(world, other, 5, threads)
        for path in ("/readyz", "/v1/jobs", "/v1/models", "/metrics") * 3:
            assert world.http.get(path).status_code == 200
        upload = world.announce(odd("hang:not sent")).json()
        assert world.get(f"/v1/uploads/{upload['upload_id']}")["offset"] == 0
        assert not any(future.done() for future in sent)
        world.farm.inspection.close()
        assert {future.result().status_code for future in sent} == {503}
        assert len(world.staged()) == len(sent)  # the bytes are kept: only the last piece is to be sent again


def test_another_key_overtakes(world: World, caller: Caller) -> None:
    with ThreadPoolExecutor(60) as threads:
        sent = _hanging(world, caller("one"), 50, threads)
        other = caller("other")
        for _ in range(3):
            assert other.upload(onnx_model()).status_code == 200
        assert not any(future.done() for future in sent)
        world.farm.inspection.close()


def test_one_large_model_is_read_at_a_time(large_from_1000_bytes: None, world: World, caller: Caller) -> None:
    """Each may take all the memory that one may take; small ones go on meanwhile."""
    with ThreadPoolExecutor(60) as threads:
        sent = _hanging(world, caller("one"), 1, threads, "x" * 1000)
        other = caller("other")
        large = threads.submit(other.upload, odd("sleep:0" + " " * 1000))
        _until(lambda: len(world.staged()) == 2)
        for _ in range(3):
            assert other.upload(onnx_model()).status_code == 200
        assert not large.done()
        assert not any(future.done() for future in sent)
        world.farm.inspection.close()


def test_too_many_of_one_key_are_sent_away(few_may_wait: None, world: World, caller: Caller) -> None:
    with ThreadPoolExecutor(60) as threads:
        one = caller("one")
        sent = _hanging(world, one, 4, threads)
        answer = one.upload(onnx_model())
        assert "Send the last" in problem(answer, 429, "TOO_MANY_UPLOADS")["hint"]
        assert int(answer.headers["Retry-After"]) > 0
        assert caller("other").upload(onnx_model()).status_code == 200
        assert not any(future.done() for future in sent)
        world.farm.inspection.close()


def test_a_client_that_goes_away_leaves_nothing(world: World, caller: Caller) -> None:
    one = caller("one")
    one.model(odd("pid"))  # what is opened once is open
    process = psutil.Process()
    before = process.num_fds()
    upload = one.announce(odd("sleep:1")).json()["upload_id"]
    with pytest.raises(httpx.ReadTimeout):
        one.http.patch(
            f"/v1/uploads/{upload}", content=odd("sleep:1"), headers={"Upload-Offset": "0"}, timeout=0.3
        )
    _until(lambda: one.get(f"/v1/uploads/{upload}")["complete"])
    _until(lambda: process.num_fds() <= before)
    assert not world.staged()


def test_thousands_of_files_are_one_question(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """An announcement of a few hundred kilobytes, and a model that has as many files."""
    asked: list[object] = []
    transaction = world.farm.database.transaction

    @contextmanager
    def counted() -> Iterator[Any]:
        with transaction() as connection:
            asked.append(connection)
            yield connection

    monkeypatch.setattr(world.farm.database, "transaction", counted)
    data = b"weights"
    assert world.upload(data, kind="external_data").status_code == 200
    here, gone = (
        [{"location": f"w{number}", "digest": digest, "size_bytes": len(data)} for number in range(2000)]
        for digest in (Digest.of_bytes(data), Digest.of_bytes(b"gone"))
    )
    asked.clear()
    problem(world.announce(b"m", external_data=gone), 422, "EXTERNAL_DATA_MISSING")
    weights = b"".join(hostile_models.external(number, b"w%d" % number) for number in range(len(here)))
    model = world.model(hostile_models.model(hostile_models.graph(weights)), external_data=here)
    assert len(world.get(f"/v1/models/{model}")["external_data"]) == len(here)
    assert len(asked) < 50


def test_reading_blobs_again_does_not_hold_every_thread(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a restore from backup, whoever asks for a model has its bytes read."""
    model = world.model()
    os.utime(world.blob(model), (0, 0))
    go_on = threading.Event()
    monkeypatch.setattr(
        type(world.farm.store), "verify", lambda *_: bool(go_on.wait(PATIENCE_SECONDS)), raising=True
    )

    def asked(_: int) -> int:
        with client(world.url, world.http.headers["Authorization"].removeprefix("Bearer ")) as http:
            return http.get(f"/v1/models/{model}", timeout=PATIENCE_SECONDS).status_code

    with ThreadPoolExecutor(THREADS + 10) as threads:
        sent = [threads.submit(asked, number) for number in range(THREADS + 10)]
        try:
            _until(lambda: sum(future.done() for future in sent) >= THREADS)
            assert world.http.get("/readyz").status_code == 200
        finally:
            go_on.set()
        statuses = [future.result() for future in sent]
    assert set(statuses) == {200, 503}


# --- the turns themselves ---


class _Work:
    """Calls that last until they are told to end; ``begun`` in this order."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self._ended: dict[str, threading.Event] = defaultdict(threading.Event)

    def call(self, name: str) -> None:
        self.begun.append(name)
        assert self._ended[name].wait(PATIENCE_SECONDS)

    def end(self, *names: str) -> None:
        for name in names:
            self._ended[name].set()

    async def begins(self, *names: str) -> None:
        """These are all that have begun, in this order."""
        with anyio.fail_after(PATIENCE_SECONDS):
            while len(self.begun) < len(names):  # noqa: ASYNC110 - threads tell nobody
                await anyio.sleep(0.01)
        assert tuple(self.begun) == names


def test_submitters_take_turns() -> None:
    """One place is left to others, however long the queue of one has become before they came."""
    work = _Work()

    async def main() -> None:
        turns = Turns(2, waiting=10)
        try:
            async with anyio.create_task_group() as tasks:
                for name in ("a1", "a2", "a3", "a4", "b1", "b2", "c1"):
                    tasks.start_soon(turns.run, name[0], work.call, name)
                    await anyio.wait_all_tasks_blocked()
                await work.begins("a1", "b1")
                for ends, begins in (("a1", "a2"), ("a2", "c1"), ("b1", "b2"), ("c1", "a3"), ("a3", "a4")):
                    begun = (*work.begun, begins)
                    work.end(ends)
                    await work.begins(*begun)
                work.end("a4", "b2")
        finally:
            work.end("a1", "a2", "a3", "a4", "b1", "b2", "c1")

    anyio.run(main)


def test_who_gives_up_leaves_no_place_taken() -> None:
    work = _Work()

    async def main() -> None:
        turns = Turns(1, waiting=2, abandon=True)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(turns.run, "a", work.call, "a1")
            await work.begins("a1")
            async with anyio.create_task_group() as waiting:
                waiting.start_soon(turns.run, "b", work.call, "b1")
                waiting.start_soon(turns.run, "b", work.call, "b2")
                await anyio.wait_all_tasks_blocked()
                with pytest.raises(TooManyUploadsError):
                    await turns.run("b", work.call, "b3")
                waiting.cancel_scope.cancel()
            tasks.cancel_scope.cancel()  # the call in progress is left to itself
        work.end("a1", "b4")
        await turns.run("b", work.call, "b4")
        assert work.begun == ["a1", "b4"]
        assert not turns._waiting
        assert not turns._running

    anyio.run(main)
