"""claim_p99: a worker's claim with a million jobs in the table, beside the plainest claim there is."""

from __future__ import annotations

import time
from collections.abc import Callable

import psycopg

from bench import stand_in
from bench.farm import Servers, open_database
from bench.figures import BenchError, Figure, Goal, percentile, summary
from trtfarm.contract.builder_config import BuilderConfig
from trtfarm.contract.digest import Digest
from trtfarm.contract.leases import RetryPolicy, WorkerInfo
from trtfarm.contract.models import ModelInfo, ModelManifest
from trtfarm.contract.spec import BuildSpec
from trtfarm.contract.target import Target
from trtfarm_db import schema
from trtfarm_db.engine import Database
from trtfarm_db.repositories.artifacts import ModelRepository
from trtfarm_db.repositories.jobs import JobRepository, NewJob
from trtfarm_db.repositories.leases import LeaseRepository

NAME = "claim_p99"
GOAL = Goal("ours", "most", 50)
ROWS = 1_000_000
CLAIMS = 500
_FINISHED = 0.5  # of the rows: a table has a past
_COPY = """
INSERT INTO jobs (id, turn, kind, state, build_key, queue, model_digest, gpu, runtime, spec, priority,
                  timeout_seconds, fence, attempt, crashes, available_at, created_at, finished_at)
SELECT lpad(to_hex(n), 8, '0') || substr(job.id, 9),
       lpad(to_hex(n), 8, '0') || substr(job.id, 9),
       job.kind,
       CASE WHEN n <= %(finished)s THEN 'cancelled' ELSE 'queued' END,
       encode(sha256(n::text::bytea), 'hex'),
       regexp_replace(job.queue, 'cc-.*$', (%(gpus)s::text[])[1 + n %% cardinality(%(gpus)s::text[])]),
       job.model_digest, job.gpu, job.runtime, job.spec, n %% 3, job.timeout_seconds, 0, 0, 0,
       job.available_at, job.created_at, CASE WHEN n <= %(finished)s THEN now() END
FROM jobs AS job, generate_series(1, %(rows)s) AS n
"""
_PLAIN_SELECT = """
SELECT id FROM jobs WHERE queue = %s AND state = 'queued'
ORDER BY priority DESC, id LIMIT 1 FOR UPDATE SKIP LOCKED
"""
_PLAIN_UPDATE = """
UPDATE jobs SET state = 'running', worker_id = %s, lease_expires_at = now() + interval '1 minute'
WHERE id = %s
"""


def measure(servers: Servers) -> list[Figure]:
    with servers.database() as url:
        database = open_database(url)
        try:
            schema.upgrade(database)
            worker = stand_in.register(database)
            with psycopg.connect(url.replace("+psycopg", "")) as plain:
                _fill(database, plain)
                ours, peer = _interleaved(_claim(database, worker), _plain_claim(plain, worker))
        finally:
            database.close()
    details = {"rows": ROWS, "claims": CLAIMS, "ours": summary(ours), "plain": summary(peer)}
    best, plainest = (percentile(series, 99) * 1e3 for series in (ours, peer))
    return [Figure(NAME, best, plainest, " ms", "psycopg: SELECT … SKIP LOCKED, UPDATE", GOAL, details)]


def _fill(database: Database, plain: psycopg.Connection) -> None:
    """One job as a submission makes it, and copies of it for every queue of the worker."""
    digest = Digest.of_bytes(b"a model")
    target = Target(
        gpu=stand_in.GPU, compute_capability=stand_in.GPU.removeprefix("cc-"), runtime=stand_in.RUNTIME
    )
    spec = BuildSpec(model=digest, target=target, config=BuilderConfig())
    with database.transaction() as connection:
        info = ModelInfo(inputs=(), outputs=(), ir_version=10, opsets={}, node_count=1)
        ModelRepository(connection).add(ModelManifest(onnx=digest, onnx_size_bytes=1), info)
        JobRepository(connection).create(NewJob(spec, priority=-1, timeout_seconds=3600))
    values = {"rows": ROWS, "finished": int(ROWS * _FINISHED), "gpus": list(stand_in.GPUS)}
    plain.execute(_COPY, values)
    plain.commit()
    plain.autocommit = True
    plain.execute("VACUUM ANALYZE jobs")
    plain.execute("CHECKPOINT")
    plain.autocommit = False


def _claim(database: Database, worker: WorkerInfo) -> Callable[[], bool]:
    queues = stand_in.queues(worker)

    def claim() -> bool:
        with database.transaction() as connection:
            leases = LeaseRepository(connection, lease_seconds=stand_in.LEASE_SECONDS, policy=RetryPolicy())
            return leases.claim(queues, worker.worker_id) is not None

    return claim


def _plain_claim(connection: psycopg.Connection, worker: WorkerInfo) -> Callable[[], bool]:
    queue = stand_in.queues(worker)[0]

    def claim() -> bool:
        row = connection.execute(_PLAIN_SELECT, (queue,)).fetchone()
        if row is not None:
            connection.execute(_PLAIN_UPDATE, (worker.worker_id, row[0]))
        connection.commit()
        return row is not None

    return claim


def _interleaved(*claims: Callable[[], bool]) -> list[list[float]]:
    """Seconds of each claim, in turn."""
    seconds: list[list[float]] = [[] for _ in claims]
    for _ in range(CLAIMS):
        for claim, series in zip(claims, seconds, strict=True):
            start = time.perf_counter()
            claimed = claim()
            series.append(time.perf_counter() - start)
            if not claimed:
                raise BenchError("the queue is empty")
    return seconds
