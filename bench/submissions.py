"""submissions_per_second: durable submissions to one API process, beside Celery and procrastinate."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from statistics import median
from uuid import uuid4

from celery import Celery
from procrastinate import App, SyncPsycopgConnector

from bench import load, stand_in
from bench.farm import Servers, farm
from bench.figures import Figure, Goal
from bench.submit_to_plan import model_file
from trtfarm.contract.digest import Digest
from trtfarm.inspection.manifest import manifest_of
from trtfarm.sdk.client import FarmClient

NAME = "submissions_per_second"
GOAL = Goal("ours", "least", 300)
ROUNDS = 5
COUNT = 1000  # a round
Enqueue = Callable[[int], object]
_PROCESSES, _CONNECTIONS = 2, 8
_WORKSPACE = 1 << 20


def measure(servers: Servers) -> list[Figure]:
    ours: list[float] = []
    bare: list[float] = []
    durable: list[float] = []
    with farm(servers, workers=0) as running, FarmClient(running.url, running.key) as client:
        stand_in.register(running.database)
        model = model_file()
        digest = client.upload_model(model, manifest_of(model))
        with _celery(servers) as enqueue, _procrastinate(servers) as defer:
            for number in range(-1, ROUNDS):
                requests = [
                    submission(digest, _WORKSPACE + (number + 1) * COUNT + i, running.key)
                    for i in range(COUNT)
                ]
                rates = (
                    load.closed_loop(
                        running.port, requests, expect=201, processes=_PROCESSES, connections=_CONNECTIONS
                    ),
                    _rate(enqueue),
                    _rate(defer),
                )
                if number >= 0:  # the first round warms
                    for series, rate in zip((ours, bare, durable), rates, strict=True):
                        series.append(rate)
    details = {"rounds": ours, "clients": _PROCESSES * _CONNECTIONS}
    return [
        Figure(NAME, median(ours), median(bare), "/s", "Celery apply_async on Redis", GOAL, details),
        Figure(NAME, median(ours), median(durable), "/s", "procrastinate defer on PostgreSQL", GOAL, details),
    ]


def submission(model: Digest, workspace: int, key: str) -> bytes:
    """What the SDK sends; every workspace is a build key of its own."""
    return load.post(
        "/v1/jobs",
        {
            "model": model,
            "target": {"gpu": stand_in.GPU},
            "config": {"memory_pool_limits": {"workspace": workspace}},
        },
        Authorization=f"Bearer {key}",
        Idempotency_Key=uuid4().hex,
    )


def _rate(call: Enqueue) -> float:
    start = time.perf_counter()
    for number in range(COUNT):
        call(number)
    return COUNT / (time.perf_counter() - start)


@contextlib.contextmanager
def _celery(servers: Servers) -> Iterator[Enqueue]:
    app = Celery("bench", broker=servers.redis.url, set_as_current=False)
    app.conf.update(task_ignore_result=True)

    @app.task(name="bench.build")  # type: ignore[untyped-decorator]
    def build(number: int) -> None:
        del number

    queue = f"bench-{uuid4().hex}"
    try:
        yield lambda number: build.apply_async((number,), queue=queue)
    finally:
        with app.connection_for_write() as connection:
            connection.default_channel.queue_purge(queue)
        app.close()


@contextlib.contextmanager
def _procrastinate(servers: Servers) -> Iterator[Enqueue]:
    with servers.postgres.database() as url:
        app = App(connector=SyncPsycopgConnector(conninfo=url.replace("+psycopg", "")))

        @app.task(name="bench.build")
        def build(number: int) -> None:
            del number

        with app.open():
            app.schema_manager.apply_schema()
            yield lambda number: build.defer(number=number)
