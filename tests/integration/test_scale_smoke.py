"""The measurement of `python -m bench.scale`, small: that it measures, and that its promises hold."""

from __future__ import annotations

from bench.farm import Servers
from bench.scale import Size, run
from tests.services import PostgresServer, RedisServer


def test_a_small_fleet(postgres_server: PostgresServer, redis_server: RedisServer) -> None:
    size = Size(
        workers=30, jobs=2000, seconds=6, build_seconds=0.5, processes=2, threads=2, quota=3, followers=2
    )
    found = run(Servers(postgres_server, redis_server), size)
    assert found["errors"] == []
    assert found["claims"] > 30
    assert found["low_in_order"]
    assert 0.03 < found["low_share"] < 0.25
    assert 1 <= found["most_running_of_quota"] <= 3
    assert found["api_p99_ms"].keys() >= {"POST /v1/jobs", "GET /v1/jobs/{id}"}
