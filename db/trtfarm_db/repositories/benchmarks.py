"""What was measured."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, select

from trtfarm.contract.benchmark import BenchmarkView
from trtfarm_db.models import Benchmark
from trtfarm_db.repositories import views


class BenchmarkRepository:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def page(
        self,
        *,
        plan: str | None = None,
        model: str | None = None,
        gpus: Sequence[str] = (),
        runtime: str | None = None,
        before: str | None = None,
        limit: int = 50,
    ) -> list[BenchmarkView]:
        """Newest first, older than the benchmark of job ``before``."""
        query = select(Benchmark).order_by(Benchmark.job_id.desc()).limit(limit)
        for column, value in (
            (Benchmark.plan_digest, plan),
            (Benchmark.model_digest, model),
            (Benchmark.runtime, runtime),
        ):
            if value:
                query = query.where(column == value)
        if gpus:
            query = query.where(Benchmark.gpu.in_(gpus))
        if before:
            query = query.where(Benchmark.job_id < before)
        return [views.benchmark_view(row) for row in self._connection.execute(query)]
