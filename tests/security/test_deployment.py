"""The farm as docker-compose.yml starts it: a role for each part, and a Redis that lets nobody else in."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from port_for import select_random
from redis import Redis
from redis.exceptions import AuthenticationError, NoPermissionError

from tests import services
from tests.acceptance import models
from tests.acceptance.farms import HOST, Farm, RedisProcess
from tests.acceptance.processes import clean_environment, running, wait_until
from tests.meta.repository import ROOT
from tests.security.roles import role_database
from trtfarm.ring import LOOK_TASK, celery_app

PASSWORD = "0123abcd"
RULES = (ROOT / "configs" / "redis-users.acl").read_text(encoding="utf-8")
# Refused for want of a privilege: other keys, all of them, the server, other users, other channels.
FORBIDDEN = (
    ("GET", "other"), ("SET", "other", "1"), ("LPUSH", "celery", "1"), ("BRPOP", "celery", "1"),
    ("KEYS", "*"), ("SCAN", "0"), ("FLUSHALL",), ("FLUSHDB",), ("SWAPDB", "0", "1"), ("RANDOMKEY",),
    ("RENAME", "trtfarm:a", "trtfarm:b"), ("MIGRATE", HOST, "1", "trtfarm:a", "0", "1"),
    ("CONFIG", "GET", "*"), ("CONFIG", "SET", "dir", "/tmp"), ("SAVE",),
    ("SHUTDOWN", "NOSAVE"), ("REPLICAOF", HOST, "1"), ("MONITOR",), ("INFO",), ("CLIENT", "LIST"),
    ("CLIENT", "KILL", "ID", "1"), ("ACL", "LIST"), ("ACL", "SETUSER", "mine", "on", "+@all"),
    ("MODULE", "LIST"), ("SCRIPT", "FLUSH"), ("EVAL", "return 1", "0"),
    ("PUBLISH", "trtfarm:a", "1"), ("SUBSCRIBE", "a"),
)  # fmt: skip


class LockedRedis(RedisProcess):
    """With the users of ``configs/redis-users.acl``, as the service in docker-compose.yml has them."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.port = select_random()
        self.url = f"redis://trtfarm:{PASSWORD}@{HOST}:{self.port}/0"
        self.users = folder / "users.acl"
        digest = hashlib.sha256(PASSWORD.encode()).hexdigest()
        self.users.write_text(RULES.replace("@SHA256@", digest))

    def start(self) -> None:
        binary = services.redis_on_path() or services.redis_in_wheel()
        assert binary is not None
        command = [binary, "--bind", HOST, "--port", str(self.port), "--save", "", "--dir", self._folder,
                   "--aclfile", self.users]  # fmt: skip
        self._stack.enter_context(running(command, clean_environment(), self._folder / "redis.log"))
        wait_until("Redis answers", self.answers)


@contextmanager
def locked_redis(folder: Path) -> Iterator[LockedRedis]:
    redis = LockedRedis(folder)
    with ExitStack() as stack:
        stack.callback(redis.stop)
        redis.start()
        yield redis


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LockedRedis]:
    with locked_redis(tmp_path_factory.mktemp("redis")) as redis:
        yield redis


@pytest.mark.parametrize("command", FORBIDDEN, ids=" ".join)
def test_the_farms_user_in_redis_cannot(redis: LockedRedis, command: tuple[str, ...]) -> None:
    with Redis.from_url(redis.url) as client, pytest.raises(NoPermissionError):
        client.execute_command(*command)


def test_nobody_gets_in_without_the_password(redis: LockedRedis) -> None:
    for url in (f"redis://{HOST}:{redis.port}/0", redis.url.replace(PASSWORD, "guess")):
        with Redis.from_url(url) as client, pytest.raises(AuthenticationError):
            client.set("trtfarm:a", "1")


def test_all_that_celery_does_is_allowed(redis: LockedRedis) -> None:
    """Also what it seldom does: a message that was taken and not acknowledged goes back to its queue."""
    app = celery_app(redis.url)
    with app.connection() as connection, connection.channel() as channel:
        channel.queue_declare("acl")
        app.send_task(LOOK_TASK, queue="acl", connection=connection)
        message = channel.basic_get("acl")
        assert message is not None
        channel.qos.restore_unacked()
        channel.qos.restore_visible()
        assert channel.basic_get("acl", no_ack=True) is not None
        channel.queue_purge("acl")
        channel.queue_delete("acl")


def test_a_farm_with_least_privilege_builds(postgres_server: services.PostgresServer, tmp_path: Path) -> None:
    """The API and a worker, each as its role in PostgreSQL, and rung through a Redis with a password."""
    with role_database(postgres_server) as database, locked_redis(tmp_path) as redis:
        farm = Farm(
            tmp_path, database.url_of(database.roles.api), redis, TRTFARM_WORKER_IDLE_POLL_SECONDS=600
        )
        worker_url = database.url_of(database.roles.worker)
        with farm.http, farm.api(), farm.worker("worker", TRTFARM_DATABASE_URL=worker_url):
            for seed in range(2):
                job_id = farm.submit(models.small(tmp_path / f"{seed}.onnx", seed))
                assert farm.wait_for(job_id, "succeeded", "failed")["state"] == "succeeded"
        farm.check_logs()
        for log in farm.logs:
            text = log.read_text(errors="replace")
            assert "NOPERM" not in text
            assert "permission denied" not in text
            assert "cannot ring" not in text
            assert PASSWORD not in text
