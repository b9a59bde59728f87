"""`python -m bench.scale`: a thousand workers and a hundred thousand queued jobs, before a real API.

The workers are simulated (see ``bench.fleet``): their claims, renewals, results and signs of life are the
real ones, at the real intervals; only the build is a pause, and so short that days pass in minutes.
PostgreSQL, Redis, the API and its dispatcher are real processes. Of the jobs

* the **low** ones are the oldest, and the **high** ones more than the fleet can do in the whole run, so that
  nothing but the oldest job's turn ever starts a low one;
* the **quota** ones go before all others, and belong to a key that may have few of them running;
* the rest is **normal**.

Meanwhile people submit, look at jobs, lists, the fleet and the metrics, and follow jobs.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from bench import fleet, load, stand_in
from bench.farm import Farm, Servers, farm, servers
from bench.figures import BenchError, percentile
from bench.people import People, connected, use
from bench.submissions import submission
from bench.submit_to_plan import model_file
from trtfarm.contract.digest import Digest
from trtfarm.contract.jobs import Scope
from trtfarm.contract.target import DEFAULT_PLATFORM, queue_name
from trtfarm.inspection.manifest import manifest_of
from trtfarm.sdk.client import FarmClient
from trtfarm_db.repositories.keys import KeyRepository

GPUS = tuple(f"gpu-{number}" for number in range(10))
GPU_RUNTIME = "tensorrt-10.16.1"
CLASSES = {"low": -50, "normal": 0, "high": 50, "quota": 100}
_ORDER = ("low", "normal", "quota", "high")  # of submission
_COPY = """
INSERT INTO jobs (id, turn, kind, state, build_key, queue, model_digest, gpu, runtime, spec, priority, quota,
                  submitter, timeout_seconds, fence, attempt, crashes, available_at, created_at)
SELECT lpad(to_hex(%(first)s + n), 8, '0') || substr(job.id, 9),
       lpad(to_hex(%(first)s + n), 8, '0') || substr(job.id, 9), job.kind, 'queued',
       encode(sha256((%(first)s + n)::text::bytea), 'hex'),
       (%(queues)s::text[])[1 + n %% cardinality(%(queues)s::text[])],
       job.model_digest, job.gpu, job.runtime, job.spec, %(priority)s, %(quota)s, job.submitter,
       job.timeout_seconds,
       0, 0, 0, job.available_at, job.created_at
FROM (SELECT * FROM jobs LIMIT 1) AS job, generate_series(1, %(count)s) AS n
"""
_WORKER = """
INSERT INTO workers (id, hostname, runtime, platform, gpus, slots, draining, started_at, last_seen_at)
VALUES (%s, 'simulated', %s, %s, %s, 1, false, now(), now())
"""


@dataclass(frozen=True)
class Size:
    """``quota``: running jobs that the key of the quota class may have."""

    workers: int = 1000
    jobs: int = 100_000
    seconds: float = 240.0
    build_seconds: float = 30.0
    processes: int = 16
    threads: int = 1
    quota: int = 20
    followers: int = 20


@dataclass(frozen=True)
class Report:
    size: Size
    records: Sequence[fleet.Record]
    people: People
    classes: dict[str, int]
    claimed: Counter[str]
    low_in_order: bool

    def document(self) -> dict[str, Any]:
        claims = [took for record in self.records for _, took in record.claims]
        late = [each for record in self.records for each in record.late]
        third = self.size.seconds / 3
        parts = [
            [took for record in self.records for at, took in record.claims if low <= at < low + third]
            for low in (0.0, third, 2 * third)
        ]
        rss = self.people.rss_bytes
        writes = {
            kind: percentile([each for record in self.records for each in record.seconds[kind]], 99) * 1e3
            for kind in ("renew", "finish", "seen")
            if any(record.seconds[kind] for record in self.records)
        }
        return {
            "workers": self.size.workers,
            "queued_jobs": self.size.jobs,
            "seconds": self.size.seconds,
            "build_seconds": self.size.build_seconds,
            "claims": len(claims),
            "claims_per_second": len(claims) / self.size.seconds,
            "claim_ms": {
                "p50": percentile(claims, 50) * 1e3,
                "p99": percentile(claims, 99) * 1e3,
                "max": max(claims) * 1e3,
                "p99_by_third": [percentile(part, 99) * 1e3 for part in parts if part],
            },
            "write_p99_ms": writes,
            "late_p99_ms": percentile(late, 99) * 1e3,
            "claimed": dict(self.claimed),
            "low_share": self.claimed["low"] / max(1, sum(self.claimed.values())),
            "low_in_order": self.low_in_order,
            "most_running_of_quota": max(self.people.running_of_quota, default=0),
            "api_p50_ms": self._of_people(50),
            "api_p99_ms": self._of_people(99),
            "api_rss_mib": {
                "start": rss[0] / 2**20,
                "after_a_third": rss[len(rss) // 3] / 2**20,
                "end": rss[-1] / 2**20,
                "most": max(rss) / 2**20,
            },
            "errors": [error for record in self.records for error in record.errors],
        }

    def _of_people(self, percent: int) -> dict[str, float]:
        series = sorted(self.people.seconds.items())
        return {name: percentile(each, percent) * 1e3 for name, each in series}


def measure(running: Farm, size: Size) -> Report:
    queues, workers = _register(running, size.workers)
    key, model = _prepare(running, size)
    classes = _fill(running, queues, size, key)
    context = multiprocessing.get_context("spawn")
    pipes, processes = [], []
    for number in range(size.processes):
        ours, theirs = context.Pipe()
        plan = fleet.Fleet(
            database_url=running.database_url,
            workers=workers[number :: size.processes],
            threads=size.threads,
            build_seconds=size.build_seconds,
            seconds=size.seconds,
            seed=number,
        )
        processes.append(context.Process(target=fleet.run, args=(plan, theirs), daemon=True))
        processes[-1].start()
        pipes.append(ours)
    try:
        for pipe in pipes:
            pipe.recv()
        started = time.monotonic() + 0.5
        for pipe in pipes:
            pipe.send(started)
        people = use(running, model, key, size.followers, until=started + size.seconds)
        records: list[fleet.Record] = [pipe.recv() for pipe in pipes]
    finally:
        for process in processes:
            process.join(10)
            process.kill()
    # Ids tell the order of submission, and so the class.
    bounds, first = {}, 1
    for name in _ORDER:
        bounds[name] = (first, first + classes[name])
        first += classes[name]
    claimed = Counter(
        next((name for name in _ORDER if bounds[name][0] <= number < bounds[name][1]), "submitted meanwhile")
        for record in records
        for number in (int(job_id[:8], 16) for _, job_id in record.claimed)
    )
    low = sorted((at, int(job_id[:8], 16)) for record in records for at, job_id in record.claimed)
    of_low = [number for _, number in low if number < bounds["low"][1]]
    return Report(size, records, people, classes, claimed, _in_order(of_low, size.workers))


def _in_order(numbers: Sequence[int], slack: int) -> bool:
    """Oldest first, but for claims at the same moment and queues that are shorter than others."""
    return all(number <= place + 1 + 20 * slack for place, number in enumerate(numbers))


def _register(running: Farm, count: int) -> tuple[list[str], list[tuple[str, Sequence[str]]]]:
    """Half of the workers sit on a GPU, half build for every capability; returns all queues, and theirs."""
    capabilities = [queue_name(stand_in.RUNTIME, gpu) for gpu in stand_in.GPUS]
    rows, workers = [], list[tuple[str, Sequence[str]]]()
    for number in range(count):
        gpu = GPUS[number // 2 % len(GPUS)]
        on_gpu = number % 2 == 0
        worker_id = str(uuid4())
        workers.append((worker_id, [queue_name(GPU_RUNTIME, gpu)] if on_gpu else capabilities))
        runtime, gpus = (GPU_RUNTIME, [gpu]) if on_gpu else (stand_in.RUNTIME, stand_in.GPUS)
        rows.append((worker_id, runtime, DEFAULT_PLATFORM, json.dumps(gpus)))
    with connected(running) as plain, plain.cursor() as cursor:
        cursor.executemany(
            _WORKER,
            rows,
        )
        plain.commit()
    return [*capabilities, *(queue_name(GPU_RUNTIME, gpu) for gpu in GPUS)], workers


def _prepare(running: Farm, size: Size) -> tuple[str, Digest]:
    with running.database.transaction() as connection:
        key, _ = KeyRepository(connection).create("quota", Scope.SUBMIT, size.quota)
    path = model_file()
    with FarmClient(running.url, running.key) as client:
        model = client.upload_model(path, manifest_of(path))
    with load.Connection(running.port) as connection:
        connection.exchange(submission(model, 1 << 20, running.key))
    return key, model


def _fill(running: Farm, queues: list[str], size: Size, key: str) -> dict[str, int]:
    """Jobs of each class, spread over the queues."""
    classes = {"low": size.jobs // 5, "normal": size.jobs // 5, "quota": size.jobs // 20}
    classes["high"] = size.jobs - sum(classes.values())
    first = 0
    with connected(running) as plain:
        for name in _ORDER:
            values = {
                "first": first,
                "count": classes[name],
                "queues": queues,
                "priority": CLASSES[name],
                "quota": key if name == "quota" else "",
            }
            plain.execute(_COPY, values)
            first += classes[name]
        plain.commit()
        plain.autocommit = True
        plain.execute("VACUUM ANALYZE jobs")
        plain.execute("CHECKPOINT")
    return classes


def table(document: dict[str, Any]) -> str:
    """The report as Markdown."""
    rows = [("figure", "value"), ("---", "---")]

    def add(name: str, value: object) -> None:
        if isinstance(value, dict):
            for key, each in value.items():
                add(f"{name}, {key}", each)
        elif isinstance(value, list):
            rows.append((name, ", ".join(_short(each) for each in value) or "none"))
        else:
            rows.append((name, _short(value)))

    for name, value in document.items():
        add(name.replace("_", " "), value)
    return "\n".join(f"| {name} | {value} |" for name, value in rows)


def _short(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def main() -> int:
    default = Size()
    parser = argparse.ArgumentParser(prog="python -m bench.scale", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    for name in ("workers", "jobs", "processes", "threads", "quota", "followers"):
        parser.add_argument(f"--{name}", type=int, default=getattr(default, name))
    for name in ("seconds", "build-seconds"):
        parser.add_argument(f"--{name}", type=float, default=getattr(default, name.replace("-", "_")))
    parser.add_argument("--json", action="store_true", help="one JSON document on standard output")
    given = vars(parser.parse_args())
    as_json = given.pop("json")
    try:
        with servers() as private:
            document = run(private, Size(**given))
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    print(json.dumps(document, indent=1) if as_json else table(document))
    return 1 if document["errors"] else 0


def run(private: Servers, size: Size) -> dict[str, Any]:
    with farm(private, workers=0) as running:
        return measure(running, size).document()


if __name__ == "__main__":
    sys.exit(main())
