"""Every failpoint on both back ends: a process dies there, starts again, and nothing is lost or done twice.

The cases run several at a time, because they mostly wait.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex

import pytest
from psycopg import sql

from tests import services
from tests.acceptance import models
from tests.acceptance.farms import RedisProcess
from tests.chaos.behaviour import Behaviour
from tests.chaos.checker import check
from tests.chaos.client import Client, History, build
from tests.chaos.farm import ChaosFarm, Gpu
from tests.chaos.parts import Supervisor, eventually
from tests.integration.conftest import opened
from trtfarm.contract.leases import RetryPolicy
from trtfarm.failpoints import POINTS, VARIABLE
from trtfarm_db.schema import upgrade

SECONDS = 90.0  # for one thing, on a busy machine
REST_SECONDS = 60.0  # so long a transaction may keep its locks in which a worker is stopped
NEEDS_A_GPU = {"timing_cache.after_put", "timing_cache.after_commit"}  # embedded farms here have none
OF_WORKER = tuple(sorted(point for point in POINTS if point.startswith(("worker.", "timing_cache."))))
OF_SERVER = tuple(sorted(POINTS - {*OF_WORKER}))
LOST_CLAIM = "worker.after_claim"  # what gives the reaper work
RTX, ENTERPRISE = "tensorrt-rtx-1.7.1.116", "tensorrt-10.16.1"
PATIENT = RetryPolicy(max_attempts=50, max_crashes=50, backoff_seconds=0.01)  # no fault ends a job here
SMALLEST_BYTES = 3 << 20  # of a model: an upload in several writes


@dataclass(frozen=True)
class Case:
    """One farm whose process dies at one point after another: each start is armed with the next one.

    ``raise`` and ``pause`` need no other start, so the only one is armed with all.
    """

    name: str
    back_end: str
    points: tuple[str, ...]
    action: str = "kill9"

    @property
    def starts(self) -> list[dict[str, str]]:
        each = [f"{point}:{self.action}" for point in self.points]
        return [{VARIABLE: item} for item in (each if self.action == "kill9" else [",".join(each)])]

    @property
    def of_worker(self) -> bool:
        return self.points[0] in OF_WORKER

    def __str__(self) -> str:
        return f"{self.back_end}-{self.name}-{self.action}"


def _embedded(points: tuple[str, ...]) -> Iterator[str]:
    for point in points:
        if point.startswith("reaper."):
            yield LOST_CLAIM
        if point not in NEEDS_A_GPU:
            yield point


CASES = (
    Case("worker", "postgresql", OF_WORKER),
    Case("server", "postgresql", OF_SERVER),
    Case("worker", "sqlite", tuple(_embedded(OF_WORKER))),
    Case("server", "sqlite", tuple(_embedded(OF_SERVER))),
    Case("worker", "postgresql", OF_WORKER, "raise"),
    Case("after_publish", "postgresql", ("worker.after_publish",), "pause"),
    Case("after_claim", "postgresql", ("worker.after_claim",), "pause"),
)


class Bench:
    """Runs cases at the same time, each on a database of its own."""

    def __init__(self, folder: Path, postgres: services.PostgresServer, redis: RedisProcess) -> None:
        self._folder, self._postgres, self._redis = folder, postgres, redis
        self._template = f"trtfarm_chaos_{token_hex(6)}"

    def prepare(self) -> None:
        self._sql(sql.SQL("CREATE DATABASE {}"), self._template)
        database = opened(self._postgres.url(self._template))
        upgrade(database)
        database.close()

    def clean(self) -> None:
        self._sql(sql.SQL("DROP DATABASE {} WITH (FORCE)"), self._template)

    def _sql(self, text: sql.SQL, *names: str) -> None:
        self._postgres.execute(text.format(*map(sql.Identifier, names)))

    def run(self, case: Case) -> list[str]:
        """What went wrong."""
        folder = self._folder / str(case)
        if case.back_end == "sqlite":
            url = f"sqlite:///{folder / 'home' / 'farm.sqlite'}"
            return Run(case, ChaosFarm(folder, url, None, url)).go()
        name = f"{self._template}_{token_hex(4)}"
        self._sql(sql.SQL("CREATE DATABASE {} TEMPLATE {}"), name, self._template)
        try:
            url = self._postgres.url(name)
            return Run(case, ChaosFarm(folder, url, self._redis.url, url)).go()
        finally:
            self._sql(sql.SQL("DROP DATABASE {} WITH (FORCE)"), name)


class Run:
    def __init__(self, case: Case, farm: ChaosFarm) -> None:
        self.case, self.farm = case, farm
        self.gpu = Gpu(f"GPU-chaos-{token_hex(6)}")
        farm.settings |= dict.fromkeys(
            ("TRTFARM_WORKER_RETRY", "TRTFARM_SERVER_RETRY"), PATIENT.model_dump_json()
        )
        if farm.embedded:
            self.parts = [farm.server(case.starts)]
        else:
            self.parts = [
                farm.server([] if case.of_worker else case.starts),
                farm.worker("worker", self.gpu, case.starts if case.of_worker else []),
            ]
        self.armed = self.parts[-1] if case.of_worker else self.parts[0]
        self.jobs: list[str] = []

    def go(self) -> list[str]:
        history = History()
        try:
            with Supervisor(self.parts), Client(self.farm.url, history, SECONDS) as client:
                for number in range(2 * len(self.case.points)):
                    self._work(client, number)
                    if self._all_done():
                        break
                self._expect_the_faults(history)
                eventually(lambda: not self._waits(), SECONDS)
                metrics = client.metrics()
                wrong = [line for line in metrics.splitlines() if line.startswith("trtfarm_jobs{")]
                if wrong:
                    history.violations.append(f"metrics tell of live jobs: {wrong}")
            stopped = {part.name: part.stop() for part in reversed(self.parts)}
            report = check(self.farm, history, PATIENT)
            report.expect(not any(stopped.values()), f"exit statuses {stopped}")
            report.expect(not report.numbers["ended_by_faults"], f"{report.numbers['ended_by_faults']}")
            if self.case.action != "raise":
                for log in self.farm.logs:
                    text = log.read_text(errors="replace")
                    report.expect("Traceback" not in text, f"{log.name}: {text[-3000:]}")
            return report.violations
        finally:
            for part in self.parts:
                part.kill()
            for folder in ("/run/lock", "/tmp"):
                Path(folder, f"trtfarm-{self.gpu.uuid}.lock").unlink(missing_ok=True)

    def _waits(self) -> bool:
        """Whether attempts lie in the spool. One that raised after its commit goes two seconds later."""
        return any(path for scratch in self.farm.scratches() for path in (scratch / "spool").glob("*"))

    @property
    def _next(self) -> str:
        """The point that the armed process has not come to yet."""
        return next(iter(self.case.points[len(self.armed.exits) :]), "")

    def _all_done(self) -> bool:
        if self.case.action == "raise":
            return not self._not_raised()
        return self.case.action == "pause" or not self._next

    def _work(self, client: Client, number: int) -> None:
        """What makes every part of the farm do everything once."""
        self.farm.store().put_bytes(f"garbage {number}".encode())
        path = models.padded(self.farm.folder / "model.onnx", SMALLEST_BYTES + 64 * number)
        client.upload_a_part(path, SMALLEST_BYTES // 2)
        digest = client.upload(path)
        gpu, runtime = ("cc-8.9", RTX) if self.farm.embedded else ("l4", ENTERPRISE)
        jobs = []
        for behaviour in (Behaviour.QUICK, Behaviour.CRASH_ONCE):
            request = build(
                digest, gpu, behaviour, behaviour, seconds=0.3, timing_cache=True, runtime=runtime
            )
            key = f"{self.case}-{number}-{behaviour}"
            jobs.append(client.submit(key, request, behaviour).job.job_id)
            client.submit(key, request, behaviour)  # said twice is said once
        if self.case.action == "pause":
            self._wake_up(client, jobs[0])
        elif self._next.startswith("reaper.") and not self.farm.embedded:
            eventually(lambda: client.job(jobs[0]).state != "queued", SECONDS)
            self.parts[-1].signal(signal.SIGKILL)
        long = build(digest, gpu, 9, seconds=25, runtime=runtime)
        cancelled = client.submit(f"{self.case}-{number}-cancel", long, Behaviour.QUICK).job.job_id
        client.cancel(cancelled)
        for job_id in (*jobs, cancelled):
            job = client.wait(job_id)
            if job is not None and job.plan is not None:
                client.download(job.plan.digest, self.farm.folder / "plan")

    def _wake_up(self, client: Client, job_id: str) -> None:
        """The worker is silent for longer than its lease."""

        def lost() -> bool:
            job = client.job(job_id)
            return job.state == "queued" and bool(job.attempts)

        if not eventually(lost, SECONDS + REST_SECONDS):
            client.history.violations.append("the paused worker's job did not go back to the queue")
        self.armed.signal(signal.SIGCONT)

    def _expect_the_faults(self, history: History) -> None:
        if self.case.action == "kill9":
            eventually(lambda: not self._next, 10)
            if self.armed.exits != [-signal.SIGKILL] * len(self.case.points):
                told = f"ended with {self.armed.exits}; it never came to {self._next}"
                history.violations.append(f"{self.armed.name} {told}")
        elif missing := (self._not_raised() if self.case.action == "raise" else []):
            history.violations.append(f"{self.armed.name} never came to {missing}")

    def _not_raised(self) -> list[str]:
        text = self.armed.log.read_text()
        return [point for point in self.case.points if f"FailpointError: {point}" not in text]


@pytest.fixture(scope="module")
def results(
    postgres_server: services.PostgresServer,
    tmp_path_factory: pytest.TempPathFactory,
    request: pytest.FixtureRequest,
) -> Iterator[dict[Case, Future[list[str]]]]:
    chosen = [item.callspec.params["case"] for item in request.session.items if _is_case(item)]
    folder = tmp_path_factory.mktemp("sweep")
    redis = RedisProcess(folder)
    redis.start()
    bench = Bench(folder, postgres_server, redis)
    bench.prepare()
    with ThreadPoolExecutor(len(CASES)) as pool:
        try:
            yield {case: pool.submit(bench.run, case) for case in chosen}
        finally:
            pool.shutdown(cancel_futures=True)
            bench.clean()
            redis.stop()


def _is_case(item: pytest.Item) -> bool:
    return getattr(getattr(item, "function", None), "__name__", "") == test_nothing_is_lost_there.__name__


@pytest.mark.timeout(600)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_nothing_is_lost_there(results: dict[Case, Future[list[str]]], case: Case) -> None:
    assert results[case].result() == []
