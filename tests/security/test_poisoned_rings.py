"""What others may put into Redis: a worker survives it, and hears the next ring."""

from __future__ import annotations

import base64
import json
import pickle
import re
import signal
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from tests.acceptance.processes import Process, clean_environment, running, wait_until
from tests.services import RedisServer
from trtfarm.ring import LOOK_TASK, celery_app
from trtfarm_worker.rings import TRANSPORT

SECONDS = 60


def ring(body: object = ([], {}, {}), **changes: object) -> dict[str, Any]:
    """A message as Celery makes it, with another body and other parts."""
    text = body if isinstance(body, str) else base64.b64encode(json.dumps(body).encode()).decode()
    message = {
        "body": text,
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {"lang": "py", "task": LOOK_TASK, "id": "1", "root_id": "1", "argsrepr": "()"},
        "properties": {
            "correlation_id": "1",
            "delivery_mode": 1,
            "delivery_info": {"exchange": "", "routing_key": "x"},
            "priority": 0,
            "body_encoding": "base64",
            "delivery_tag": "1",
        },
    }
    return message | changes


def without(*names: str) -> dict[str, Any]:
    return {name: value for name, value in ring().items() if name not in names}


def part(name: str, **changes: object) -> dict[str, Any]:
    """One of the message's parts with other fields; None removes one."""
    fields = ring()[name] | changes
    return ring(**{name: {key: value for key, value in fields.items() if value is not None}})


PICKLED = base64.b64encode(pickle.dumps(print)).decode()
BOMB = base64.b64encode(zlib.compress(b"[" + b" " * (64 << 20) + b"]")).decode()
ENTRIES: dict[str, bytes | dict[str, Any] | list[Any] | str | int | None] = {
    "nothing": b"",
    "no JSON": b"\xff\x00 this is no JSON",
    "half JSON": json.dumps(ring()).encode()[:-5],
    "deep JSON": b"[" * 100_000,
    "NaN": b"NaN",
    "a number": 1,
    "null": None,
    "a text": "look",
    "a list": [],
    "an empty object": {},
    "no body": without("body"),
    "no headers": without("headers"),
    "no properties": without("properties"),
    "no content type": without("content-type"),
    "no content encoding": without("content-encoding"),
    "headers of null": ring(headers=None),
    "headers of a list": ring(headers=["task"]),
    "headers of text": ring(headers="task"),
    "properties of null": ring(properties=None),
    "properties of a list": ring(properties=[]),
    "no task": part("headers", task=None),
    "a task of a list": part("headers", task=[LOOK_TASK]),
    "a task of an object": part("headers", task={"a": 1}),
    "no id": part("headers", id=None),
    "an id of an object": part("headers", id={"a": 1}),
    "another task": part("headers", task="os.system"),
    "a task of Celery": part("headers", task="celery.backend_cleanup"),
    "an odd eta": part("headers", eta="some day"),
    "an eta of a number": part("headers", eta=1),
    "a late eta": part("headers", eta="2999-01-01T00:00:00+00:00"),
    "odd expiry": part("headers", expires="never"),
    "odd time limits": part("headers", timelimit="none"),
    "odd compression": part("headers", compression="no-such"),
    "no delivery tag": part("properties", delivery_tag=None),
    "a delivery tag of a list": part("properties", delivery_tag=[]),
    "no delivery info": part("properties", delivery_info=None),
    "odd delivery info": part("properties", delivery_info="x"),
    "an odd priority": part("properties", priority="high"),
    "an odd body encoding": part("properties", body_encoding="rot13"),
    "no base64": ring("%%%"),
    "base64 of garbage": ring(base64.b64encode(b"\xff\xfe{").decode()),
    "a body of a number": ring(7),
    "a body of null": ring(None),
    "a body of an object": ring({"a": 1}),
    "arguments that it has not": ring(([1, 2, 3], {"x": 1}, {})),
    "arguments of numbers": ring((1, 2, 3)),
    "more tasks": ring(([], {}, {"chain": [{"task": LOOK_TASK}], "callbacks": 3, "errbacks": "x"})),
    "pickle": ring(PICKLED, **{"content-type": "application/x-python-serialize"}),
    "yaml": ring("!!python/object/apply:os.getpid []", **{"content-type": "application/x-yaml"}),
    "an odd content type": ring(**{"content-type": ["application/json"]}),
    "an odd content encoding": ring(**{"content-encoding": "no-such"}),
    "a typed value": {"__type__": "datetime", "__value__": "no"},
    "a typed value of an unknown type": {"__type__": "os.system", "__value__": "true"},
    "an older protocol": {"body": "", "headers": {}, "properties": {}, "content-type": None},
    "a bomb": ring(BOMB, headers=ring()["headers"] | {"compression": "application/x-gzip"}),
    "a huge body": ring("A" * (32 << 20)),
    "huge headers": part("headers", argsrepr="x" * (32 << 20)),
}  # fmt: skip


class Worker:
    def __init__(self, process: Process, redis: Redis, url: str) -> None:
        self.process = process
        self.redis = redis
        (self.queue,) = wait_until(
            "it listens", lambda: re.findall(r"^queue (\S+)$", process.text(), re.MULTILINE)
        )
        self.key = f"trtfarm:{self.queue}"
        self._app = celery_app(url)

    @property
    def heard(self) -> int:
        return len(re.findall(r"^heard$", self.process.text(), re.MULTILINE))

    def push(self, entry: object) -> None:
        self.redis.lpush(self.key, entry if isinstance(entry, bytes) else json.dumps(entry))

    def taken(self) -> None:
        wait_until("it is taken", lambda: not self.redis.exists(self.key), SECONDS)

    def stop(self) -> None:
        self.process.signal(signal.SIGTERM)
        assert self.process.wait(SECONDS) == 0, self.process.text()[-3000:]

    def hears(self) -> None:
        """A ring from the farm."""
        self.taken()
        before = self.heard
        self._app.send_task(LOOK_TASK, queue=self.queue, ignore_result=True)
        wait_until("it is heard", lambda: self.heard > before or not self.process.running, SECONDS)
        assert self.process.running, self.process.text()[-3000:]


@pytest.fixture
def redis(redis_server: RedisServer) -> Iterator[Redis]:
    with Redis.from_url(redis_server.url) as client:
        for key in client.keys("trtfarm:*"):
            client.delete(key)
        yield client


@pytest.fixture
def start(redis: Redis, redis_server: RedisServer, tmp_path: Path) -> Iterator[Callable[[], Worker]]:
    """Starts the worker, which must end in order."""
    command = [sys.executable, "-m", "tests.security.ring_worker", redis_server.url, str(tmp_path)]
    with ExitStack() as stack:

        def worker() -> Worker:
            process = stack.enter_context(running(command, clean_environment(), tmp_path / "log"))
            made = Worker(process, redis, redis_server.url)
            stack.callback(made.stop)
            return made

        yield worker
        keys = [key.decode() for key in redis.keys("trtfarm:*")]
    assert [key for key in keys if "unacked" in key] == []


def test_entries_that_are_no_rings(start: Callable[[], Worker]) -> None:
    worker = start()
    worker.hears()
    for name, entry in ENTRIES.items():
        worker.push(entry)
        try:
            worker.hears()
        except AssertionError as error:
            raise AssertionError(f"{name}: {error}") from error
    # Each once, in a line or two: it does not come back.
    assert len(worker.process.text()) < 1000 * len(ENTRIES)
    assert "Traceback" not in worker.process.text()


def test_keys_of_another_type(start: Callable[[], Worker], redis: Redis) -> None:
    worker = start()
    worker.hears()
    wrong = [worker.key, *(f"{worker.key}\x06\x16{step}" for step in (3, 6, 9))]
    for key in wrong:
        redis.set(key, "no list")
    wait_until("they are removed", lambda: not any(redis.exists(key) for key in wrong), SECONDS)
    worker.hears()
    for key in ("trtfarm:unacked", "trtfarm:unacked_index", "trtfarm:unacked_mutex"):
        redis.set(key, "neither a hash nor a set")
    worker.hears()
    redis.delete("trtfarm:unacked", "trtfarm:unacked_index", "trtfarm:unacked_mutex")


def test_a_worker_starts_among_them(start: Callable[[], Worker], redis: Redis) -> None:
    first = start()
    first.hears()
    bindings = redis.keys("trtfarm:_kombu*")
    assert bindings
    first.stop()
    redis.set(first.key, "no list")
    for key in bindings:
        redis.delete(key)
        redis.set(key, "no set")
    redis.hset("trtfarm:unacked", "tag", "no JSON")
    redis.zadd("trtfarm:unacked_index", {"tag": 1.0})
    worker = start()
    wait_until("the key is a queue again", lambda: redis.type(worker.key) != b"string", SECONDS)
    worker.hears()
    redis.delete("trtfarm:unacked", "trtfarm:unacked_index")


def test_rings_that_nobody_has_taken_are_counted_among_them(redis: Redis, redis_server: RedisServer) -> None:
    """Else the watch for a worker that hears nothing would end."""
    app = celery_app(redis_server.url)
    app.conf.broker_transport = TRANSPORT
    redis.set("trtfarm:queue", "no list")
    with app.connection_for_read() as connection, connection.channel() as channel:
        assert channel.queue_declare("queue").message_count == 0
    redis.lpush("trtfarm:queue", "no ring")
    with app.connection_for_read() as connection, connection.channel() as channel:
        assert channel.queue_declare("queue").message_count == 1
    redis.delete("trtfarm:queue")
