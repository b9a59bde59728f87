"""Rings in a real Redis."""

from __future__ import annotations

from redis import Redis

from tests.acceptance.processes import wait_until
from tests.services import RedisServer
from trtfarm.ring import ENOUGH, CeleryBell, celery_app


def test_a_queue_that_nobody_reads_does_not_fill_redis(redis_server: RedisServer) -> None:
    """And is rung again as soon as somebody does; other queues are rung all the while."""
    bell = CeleryBell(celery_app(redis_server.url))
    with Redis.from_url(redis_server.url) as redis:

        def waiting(queue: str) -> int:
            return int(redis.llen(f"trtfarm:{queue}"))

        def ring(queue: str) -> None:
            """The bell rings for "heard" too, in an order of its own: the second time all is settled."""
            for _ in range(2):
                before = waiting("heard")
                bell.ring(queue)
                bell.ring("heard")
                wait_until("it rings", lambda before=before: waiting("heard") > before)
                redis.delete("trtfarm:heard")

        try:
            wait_until("enough wait", lambda: bell.ring("unheard") or waiting("unheard") == ENOUGH)
            for _ in range(5):
                ring("unheard")
            assert waiting("unheard") == ENOUGH
            redis.ltrim("trtfarm:unheard", 0, 9)
            ring("unheard")
            assert 10 < waiting("unheard") <= 12
        finally:
            bell.close()
            redis.delete("trtfarm:heard", "trtfarm:unheard")
