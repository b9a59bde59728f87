"""resolve_p99: the plan for a machine from a million, over HTTP, beside the bare lookup that it takes."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable

import psycopg

from bench import load, stand_in
from bench.farm import Farm, Servers, farm
from bench.figures import BenchError, Figure, Goal, percentile, summary
from bench.submissions import submission
from bench.submit_to_plan import model_file
from trtfarm.contract.digest import Digest
from trtfarm.inspection.manifest import manifest_of
from trtfarm.sdk.client import FarmClient

NAME = "resolve_p99"
GOAL = Goal("ours", "most", 25)
ROWS = 1_000_000
MODELS = 2_000  # of 500 plans each: for ten GPUs, with ten versions, in five configs
QUESTIONS = 1_000
_WARM = 100
_MISSES = 5  # one in so many asks for a version that was never built with
_PLAN_BYTES = 1 << 20
_CAPABILITIES = {
    "t4": "7.5", "a100-sxm4-80gb": "8.0", "a30": "8.0", "a10": "8.6", "l4": "8.9", "l40s": "8.9",
    "h100-pcie": "9.0", "h200": "9.0", "b200": "10.0", "rtx-5090": "12.0",
}  # fmt: skip
_GPUS = tuple(_CAPABILITIES)
_VERSIONS = 10
_MODELS_COPY = """
INSERT INTO models (digest, manifest, info, created_at)
SELECT 'sha256:' || encode(sha256(('model ' || m)::bytea), 'hex'), manifest, info, created_at
FROM models, generate_series(0, %(models)s - 1) AS m
"""
_JOBS_COPY = """
INSERT INTO jobs (id, kind, state, build_key, queue, model_digest, gpu, runtime, spec, priority,
                  timeout_seconds, fence, attempt, crashes, available_at, created_at, finished_at)
SELECT lpad(to_hex(n), 8, '0') || substr(job.id, 9), job.kind, 'succeeded',
       encode(sha256(n::text::bytea), 'hex'), job.queue, job.model_digest, job.gpu, job.runtime, '{}', 0,
       job.timeout_seconds, 1, 1, 0, job.available_at, job.created_at, job.finished_at
FROM jobs AS job, generate_series(0, %(rows)s - 1) AS n
"""
# Every fifth config is hardware-compatible, so a model has a hundred plans that may fit anywhere.
_PLANS_COPY = """
INSERT INTO plans (job_id, digest, size_bytes, model_digest, gpu, runtime, spec, build_key, portable,
                   build_seconds, created_at)
SELECT lpad(to_hex(n), 8, '0') || substr(plan.job_id, 9), plan.digest, plan.size_bytes, named.model,
       named.gpu, named.runtime,
       jsonb_build_object(
           'model', named.model,
           'target', jsonb_build_object('gpu', named.gpu, 'compute_capability', named.capability,
                                        'runtime', named.runtime, 'platform', 'linux-x86_64'),
           'config', jsonb_build_object('avg_timing_iterations', named.config + 1)
               || CASE WHEN named.config = 4
                  THEN '{"hardware_compatibility_level": "same_compute_capability"}'::jsonb
                  ELSE '{}'::jsonb END,
           'profiles', '[]'::jsonb, 'plugins', '[]'::jsonb),
       encode(sha256(n::text::bytea), 'hex'), named.config = 4, plan.build_seconds, plan.created_at
FROM plans AS plan, generate_series(0, %(rows)s - 1) AS n,
     LATERAL (SELECT 'sha256:' || encode(sha256(('model ' || n %% %(models)s)::bytea), 'hex') AS model,
                     (%(gpus)s::text[])[1 + n / %(models)s %% 10] AS gpu,
                     (%(capabilities)s::text[])[1 + n / %(models)s %% 10] AS capability,
                     'tensorrt-10.' || n / %(models)s / 10 %% 10 || '.0.1' AS runtime,
                     n / %(models)s / 100 AS config) AS named
"""
_PLAIN_SELECT = """
SELECT digest, spec FROM plans WHERE model_digest = %s AND gpu = ANY(%s) AND runtime = %s
ORDER BY job_id DESC LIMIT 1
"""


def measure(servers: Servers) -> list[Figure]:
    with farm(servers, workers=0) as running:
        _first_plan(running)
        with psycopg.connect(running.database_url.replace("+psycopg", "")) as plain:
            _fill(plain)
            with load.Connection(running.port) as connection:
                ours, peer = _interleaved(_ask(connection, running.key), _look_up(plain))
    details = {"rows": ROWS, "models": MODELS, "ours": summary(ours), "plain": summary(peer)}
    best, plainest = (percentile(series, 99) * 1e3 for series in (ours, peer))
    return [
        Figure(
            NAME, best, plainest, " ms", "psycopg: the newest plan of model, GPU and version", GOAL, details
        )
    ]


def _first_plan(running: Farm) -> None:
    """One plan with its bytes in the store, of which the others are copies."""
    worker = stand_in.register(running.database)
    model = model_file()
    with FarmClient(running.url, running.key) as client, load.Connection(running.port) as connection:
        digest = client.upload_model(model, manifest_of(model))
        connection.exchange(submission(digest, 1 << 20, running.key))
    plan = running.folder / "plan"
    plan.write_bytes(os.urandom(_PLAN_BYTES))
    stand_in.finish_one(running, worker, plan)


def _fill(plain: psycopg.Connection) -> None:
    values = {
        "rows": ROWS, "models": MODELS, "gpus": list(_GPUS), "capabilities": list(_CAPABILITIES.values()),
    }  # fmt: skip
    for copy in (_MODELS_COPY, _JOBS_COPY, _PLANS_COPY):
        plain.execute(copy, values)
        plain.commit()
    plain.autocommit = True
    plain.execute("VACUUM ANALYZE plans")
    plain.execute("VACUUM ANALYZE jobs")
    plain.execute("CHECKPOINT")


def _question(number: int) -> tuple[str, str, str]:
    """(model, gpu, version), the same ones in every run."""
    draw = random.Random(number)
    model = Digest.of_bytes(f"model {draw.randrange(MODELS)}".encode())
    version = _VERSIONS + 1 if number % _MISSES == 0 else draw.randrange(_VERSIONS)
    return model, draw.choice(_GPUS), f"tensorrt-10.{version}.0.1"


def _ask(connection: load.Connection, key: str) -> Callable[[int], None]:
    def ask(number: int) -> None:
        model, gpu, runtime = _question(number)
        body = {"model": model, "machine": {"gpu": gpu, "runtime": runtime}}
        status, answer = connection.exchange(
            load.post("/v1/plans/resolve", body, Authorization=f"Bearer {key}")
        )
        miss = b'"plan":null' in answer
        if status != 200 or miss is not (number % _MISSES == 0):
            raise BenchError(f"{status}: {answer[:500].decode()}")

    return ask


def _look_up(plain: psycopg.Connection) -> Callable[[int], None]:
    def look_up(number: int) -> None:
        model, gpu, runtime = _question(number)
        plain.execute(_PLAIN_SELECT, (model, [gpu, f"cc-{_CAPABILITIES[gpu]}"], runtime)).fetchone()

    return look_up


def _interleaved(*ways: Callable[[int], None]) -> list[list[float]]:
    """Seconds of each, in turn, one question after the other."""
    seconds: list[list[float]] = [[] for _ in ways]
    for number in range(-_WARM, QUESTIONS):
        for way, series in zip(ways, seconds, strict=True):
            start = time.perf_counter()
            way(number)
            if number >= 0:
                series.append(time.perf_counter() - start)
    return seconds
