"""Many processes publish to one timing cache and are killed at random: what was committed stays in it.

A timing cache is a set of lines here, and combining two of them their union; all the rest is the farm's.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self

import pytest

from tests import values
from tests.chaos.child import entries, save
from tests.integration.conftest import opened
from trtfarm.contract.builder_config import BuilderConfig
from trtfarm.contract.device import Device
from trtfarm.contract.digest import Digest
from trtfarm.contract.spec import BuildSpec
from trtfarm.contract.target import Target
from trtfarm.store import ArtifactStore, StoreSettings
from trtfarm_db.engine import Database
from trtfarm_db.repositories.timing_caches import TimingCacheRepository
from trtfarm_db.schema import upgrade
from trtfarm_worker.child.protocol import CacheReport, Combined, CombineRequest
from trtfarm_worker.delivery import Delivery
from trtfarm_worker.settings import WorkerSettings
from trtfarm_worker.timing_cache import SharedTimingCache

PROCESSES = {"postgresql": 32, "sqlite": 8}
SECONDS = 8.0
KILLS_PER_SECOND = 15
DEVICE = Device(
    name="NVIDIA L4", gpu="l4", uuid="GPU-0", compute_capability="8.9", multiprocessors=58,
    memory_bytes=2**34, driver="580.0", cuda="13.0",
)  # fmt: skip
SPEC = BuildSpec(
    model=values.MODEL,
    target=Target(gpu="l4", compute_capability="8.9", runtime="tensorrt-10.16.1"),
    config=BuilderConfig(),
)


def publish_for_ever(url: str, folder: Path, name: str) -> None:
    """Learns one entry after another. What it was told is committed, it appends to ``told``."""
    database = opened(url)
    store = ArtifactStore.open(StoreSettings(url=(folder / "artifacts").as_uri()))
    settings = WorkerSettings(scratch=folder)
    shop: Any = SimpleNamespace(
        database=database,
        store=store,
        delivery=Delivery(store, database, settings),
        worker_id=name,
        device=DEVICE,
    )
    attempt = folder / name
    attempt.mkdir()
    told = os.open(folder / "told", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    for number in range(1_000_000):
        cache = SharedTimingCache(shop, DEVICE, SPEC, attempt)
        paths = cache.fetch()
        start = paths.get("timing_cache_in")
        before = entries(start) if start else set()
        entry = f"{name}.{number}"
        save(paths["timing_cache_out"], before | {entry})
        report = CacheReport(
            attached=True,
            entries_before=len(before),
            entries_after=len(before) + 1,
            bytes_before=0,
            bytes_after=1,
        )
        if cache.publish(cache.use(report), entry, combine).published is not None:
            os.write(told, f"{entry}\n".encode())


def combine(request: Any) -> Combined:
    assert isinstance(request, CombineRequest)
    save(request.destination, entries(request.base) | entries(request.addition))
    return Combined(ok=True, rss_bytes=1)


@pytest.fixture(params=PROCESSES)
def back_end(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, str]:
    """(name, URL of a database with all tables)."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path / 'farm.sqlite'}"
    else:
        url = request.getfixturevalue("postgres_url")
    database = opened(url)
    upgrade(database)
    database.close()
    return request.param, url


class Crowd:
    """Processes that are replaced as they are killed."""

    def __init__(self, url: str, folder: Path) -> None:
        self._url, self._folder = url, folder
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload([__name__])
        self._processes: list[BaseProcess] = []
        self.started = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for each in self._processes:
            each.kill()
            each.join()

    def grow(self) -> None:
        arguments = (self._url, self._folder, f"p{self.started}")
        process = self._context.Process(target=publish_for_ever, args=arguments, daemon=True)
        process.start()
        self._processes.append(process)
        self.started += 1

    def kill_one(self, draw: random.Random) -> None:
        victim = self._processes.pop(draw.randrange(len(self._processes)))
        with suppress(ProcessLookupError):
            os.kill(victim.pid or 0, signal.SIGKILL)
        victim.join()
        assert victim.exitcode == -signal.SIGKILL


def revisions(url: str) -> Iterator[tuple[int, Digest]]:
    database: Database = opened(url)
    with database.transaction() as connection:
        cache = TimingCacheRepository(connection).heads()[0]
        history = TimingCacheRepository(connection).history(cache.key)
    database.close()
    yield from ((each.revision, each.digest) for each in reversed(history))


def test_no_committed_entry_is_lost(back_end: tuple[str, str], tmp_path: Path) -> None:
    name, url = back_end
    draw = random.Random(7)
    with Crowd(url, tmp_path) as crowd:
        for _ in range(PROCESSES[name]):
            crowd.grow()
        end = time.monotonic() + SECONDS
        told = tmp_path / "told"
        while time.monotonic() < end or not told.exists():
            time.sleep(draw.expovariate(KILLS_PER_SECOND))
            crowd.kill_one(draw)
            crowd.grow()
    store = ArtifactStore.open(StoreSettings(url=(tmp_path / "artifacts").as_uri()))
    known: set[str] = set()
    numbers = []
    for number, digest in revisions(url):
        now = set(store.read(digest).decode().split())
        assert known <= now, f"revision {number} lost {known - now}"
        known = now
        numbers.append(number)
    assert numbers == list(range(1, len(numbers) + 1))
    committed = set(told.read_text().split())
    assert committed <= known, f"lost {committed - known}"
    assert len(committed) > 10
