"""Processes are killed in the middle of their work; every job still ends once, and as it should."""

from __future__ import annotations

import importlib.metadata
import json
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from psycopg import sql
from sqlalchemy.engine import make_url

from tests import services
from tests.acceptance import models
from tests.acceptance.farms import TRTFARM, Farm, Worker, a_farm
from tests.acceptance.processes import Process, alive, kill, running, tensorrt_children, wait_until

NOTICED_SECONDS = 2
LEASE_SECONDS = 2
LONG = models.light("inception_v2")  # some seconds of TensorRT at work
LONGER = models.light("densenet121")
RTX_VERSION = importlib.metadata.version("tensorrt-rtx")
UPLOAD_LAYERS, UPLOAD_SIDE = 3, 8192  # 384 MiB
_workspace_mib = count(900)


@pytest.fixture(scope="module")
def farm(
    postgres_server: services.PostgresServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Farm]:
    """Silence is noticed within seconds; the tests start the workers that they kill."""
    folder = tmp_path_factory.mktemp("farm")
    with (
        a_farm(
            folder,
            postgres_server,
            TRTFARM_WORKER_LEASE_SECONDS=LEASE_SECONDS,
            TRTFARM_WORKER_HEARTBEAT_SECONDS=0.5,
            TRTFARM_SERVER_DISPATCH_SECONDS=0.5,
            TRTFARM_SERVER_LEASE_SECONDS=2,
            TRTFARM_SERVER_RETRY='{"backoff_seconds": 0.2}',
            TRTFARM_WORKER_RETRY='{"backoff_seconds": 0.2}',
        ) as farm,
        farm.api(),
    ):
        yield farm
        farm.check_logs()


def submit_long(farm: Farm, *options: str, model: Path = LONG) -> str:
    """A build of some seconds that no other test shares."""
    return farm.submit(model, f"--memPoolSize=workspace:{next(_workspace_mib)}", *options)


def holder(job: dict[str, Any], *workers: Worker) -> tuple[Worker, Worker]:
    """The worker that runs the job, and the other one."""
    (mine,) = [worker for worker in workers if worker.worker_id == job["worker_id"]]
    (other,) = [worker for worker in workers if worker is not mine]
    return mine, other


def only_child(worker: Worker) -> int:
    (pid,) = tensorrt_children(worker.pid)
    return pid


def gone(pid: int, seconds: float = NOTICED_SECONDS) -> None:
    wait_until(f"process {pid} is gone", lambda: not alive(pid), seconds)


def outcomes(job: dict[str, Any]) -> list[str]:
    return [attempt["outcome"] for attempt in job["attempts"]]


DEAF = """
import sys, time
from trtfarm_worker.agent import Agent
Agent.wait_until_free = lambda self: time.sleep(600)  # Celery's consumer hangs after the first ring
from trtfarm.cli.main import main
main()
"""


def pauses(farm: Farm, worker: Worker) -> list[str]:
    workers = farm.http.get("/v1/fleet").json()["workers"]
    (mine,) = [each for each in workers if each["worker_id"] == worker.worker_id]
    return list(mine["condition"]["paused"])


def test_a_killed_worker_takes_its_child_along_and_the_other_does_the_job(farm: Farm) -> None:
    with farm.worker("lost-1") as one, farm.worker("lost-2") as two:
        job_id = submit_long(farm)
        victim, other = holder(farm.building(job_id), one, two)
        child = only_child(victim)
        victim.kill()
        gone(child)
        job = farm.wait_for(job_id, "succeeded", "failed")
        assert job["state"] == "succeeded", job
        assert outcomes(job) == ["lost", "complete"]
        assert [attempt["worker_id"] for attempt in job["attempts"]] == [victim.worker_id, other.worker_id]
        assert len(farm.plans_of(job_id)) == 1


def test_what_a_killed_worker_left_on_its_disk_goes_when_one_starts_there(farm: Farm) -> None:
    spool = farm.folder / "messy" / "spool"
    with farm.worker("messy") as worker:
        job_id = submit_long(farm)
        farm.building(job_id)
        worker.kill()
        assert [each for each in spool.iterdir() if any(each.iterdir())]
    with farm.worker("messy"):
        assert not [each for each in spool.iterdir() if each.name.endswith(".1")]
        farm.cli("job", "cancel", job_id)
        farm.wait_for(job_id, "cancelled", "succeeded")
    assert not list(spool.iterdir())


def test_a_killed_child_is_noticed_and_the_build_tried_again(farm: Farm) -> None:
    with farm.worker("crash") as worker:
        job_id = submit_long(farm)
        farm.building(job_id)
        child = only_child(worker)
        kill(child)
        killed_at = time.monotonic()
        wait_until(
            "the crash is known",
            lambda: [each for each in farm.job(job_id)["attempts"] if each["outcome"] == "crashed"],
            NOTICED_SECONDS,
        )
        assert time.monotonic() - killed_at < NOTICED_SECONDS
        job = farm.wait_for(job_id, "succeeded", "failed")
        assert job["state"] == "succeeded", job
        assert outcomes(job) == ["crashed", "complete"]
        error = job["attempts"][0]["error"]
        assert error["code"] == "BUILD_CRASHED"
        assert "SIGKILL" in error["message"]
        assert job["attempts"][0]["log"]
        assert only_child(worker) != child


def test_a_build_that_crashes_again_is_given_up(farm: Farm, tmp_path: Path) -> None:
    with farm.worker("poison") as worker:
        job_id = submit_long(farm)
        for _ in range(2):
            farm.wait_for(job_id, "running")
            farm.building(job_id)
            kill(only_child(worker))
            wait_until("it is noticed", lambda: farm.job(job_id)["state"] != "running", NOTICED_SECONDS)
        job = farm.wait_for(job_id, "failed", "succeeded")
        assert (job["state"], job["error"]["code"]) == ("failed", "BUILD_CRASHED")
        assert outcomes(job) == ["crashed", "crashed"]
        # The worker is none the worse for it.
        other = farm.submit(models.small(tmp_path / "model.onnx", seed=31))
        assert farm.wait_for(other, "succeeded", "failed")["state"] == "succeeded"


def test_a_slot_whose_own_build_crashes_too_pauses_and_goes_on(farm: Farm) -> None:
    limits = {"TRTFARM_WORKER_BREAKER_CRASHES": 2, "TRTFARM_WORKER_BREAKER_SECONDS": 8}
    with farm.worker("unsound", **limits) as worker:
        job_id = submit_long(farm)
        farm.building(job_id)
        kill(only_child(worker))
        farm.wait_for(job_id, "queued")
        farm.cli("job", "cancel", job_id)
        job_id = submit_long(farm)
        farm.building(job_id)

        def pauses_at_last() -> bool:
            for child in tensorrt_children(worker.pid):  # first of the job, then of the worker's own build
                with suppress(ProcessLookupError):
                    kill(child)
            return pauses(farm, worker) == ["crashes"]

        wait_until("it pauses", pauses_at_last, 60)
        assert metric(farm, 'trtfarm_workers_paused{reason="crashes"}') == 1
        assert "paused (crashes)" in farm.cli("fleet").out
        farm.cli("job", "cancel", job_id)
        job = farm.wait_for(submit_long(farm), "succeeded", "failed")
        assert (job["state"], outcomes(job)) == ("succeeded", ["complete"])
        wait_until("it is ready", lambda: pauses(farm, worker) == [], 10)


def test_a_worker_without_room_claims_nothing_and_says_so(farm: Farm) -> None:
    with farm.worker("full", TRTFARM_WORKER_SCRATCH_RESERVE_BYTES=2**60) as worker:
        job_id = submit_long(farm)
        wait_until("it pauses", lambda: pauses(farm, worker) == ["disk"], 10)
        assert farm.job(job_id)["state"] == "queued"
        worker.signal(signal.SIGTERM)
        assert worker.wait(20) == 0
    farm.cli("job", "cancel", job_id)


def test_cancelling_ends_the_child(farm: Farm) -> None:
    with farm.worker("cancel") as worker:
        job_id = submit_long(farm)
        farm.building(job_id)
        child = only_child(worker)
        assert farm.cli("job", "cancel", job_id, "--json").code == 0
        job = farm.wait_for(job_id, "cancelled", "succeeded", "failed", seconds=5)
        assert job["state"] == "cancelled"
        assert outcomes(job) == ["cancelled"]
        gone(child)
        again = farm.cli("job", "cancel", job_id, "--json")
        assert (again.code, again.error["code"]) == (1, "JOB_TERMINAL")
        retried = farm.cli("job", "retry", job_id, "--json").document
        assert retried["disposition"] == "created"
        assert farm.wait_for(retried["job"]["job_id"], "succeeded", "failed")["state"] == "succeeded"


def test_a_build_that_takes_too_long_is_stopped(farm: Farm) -> None:
    with farm.worker("timeout") as worker:
        child = only_child(worker)
        job = farm.wait_for(submit_long(farm, "--timeout", "1"), "failed", "succeeded")
        assert (job["state"], job["error"]["code"]) == ("failed", "BUILD_TIMEOUT")
        assert outcomes(job) == ["timeout"]
        gone(child)


def test_sigterm_lets_a_running_build_end(farm: Farm) -> None:
    with farm.worker("drain") as worker:
        job_id = submit_long(farm)
        farm.building(job_id)
        waiting = submit_long(farm)
        worker.signal(signal.SIGTERM)
        assert worker.wait(60) == 0
        job = farm.job(job_id)
        assert (job["state"], outcomes(job)) == ("succeeded", ["complete"])
        assert farm.job(waiting)["state"] == "queued"  # it claims nothing more
        states = {each["worker_id"]: each["alive"] for each in farm.http.get("/v1/fleet").json()["workers"]}
        assert not states.get(worker.worker_id, False)
        farm.cli("job", "cancel", waiting)


def test_sigterm_without_patience_gives_the_build_back(farm: Farm) -> None:
    with farm.worker("impatient", TRTFARM_WORKER_DRAIN_SECONDS=0) as worker:
        job_id = submit_long(farm, model=LONGER)
        farm.building(job_id)
        child = only_child(worker)
        worker.signal(signal.SIGTERM)
        assert worker.wait(10) == 0
        gone(child)
        job = farm.job(job_id)
        assert (job["state"], job["attempt"], outcomes(job)) == ("queued", 0, ["released"])
        farm.cli("job", "cancel", job_id)


@pytest.mark.parametrize("moment", ["TensorRT loads", "it is there"])
def test_sigterm_while_a_worker_starts(farm: Farm, moment: str) -> None:
    """Before Celery listens to signals."""
    with ExitStack() as stack:
        if moment == "it is there":
            worker: Process = stack.enter_context(farm.worker("early"))
        else:
            env = farm.env | {"TRTFARM_WORKER_SCRATCH": str(farm.folder / "early")}
            worker = stack.enter_context(running([TRTFARM, "worker"], env, farm.folder / "early.log"))
            wait_until("TensorRT loads", lambda: tensorrt_children(worker.pid))
        children = tensorrt_children(worker.pid)
        worker.signal(signal.SIGTERM)
        assert worker.wait(20) == 0
        for child in children:
            gone(child)
        assert not [each for each in farm.http.get("/v1/fleet").json()["workers"] if each["alive"]]


def test_a_second_sigterm_gives_the_build_to_another_worker(farm: Farm) -> None:
    with farm.worker("first") as one, farm.worker("second") as two:
        job_id = submit_long(farm, model=LONGER)
        leaving, other = holder(farm.building(job_id), one, two)
        child = only_child(leaving)
        leaving.signal(signal.SIGTERM)
        wait_until("the worker drains", lambda: "stopping; running builds have" in leaving.text(), 15)
        leaving.signal(signal.SIGTERM)
        assert leaving.wait(10) == 0
        gone(child)
        job = farm.wait_for(job_id, "succeeded", "failed")
        assert job["state"] == "succeeded", job
        assert outcomes(job) == ["released", "complete"]
        assert job["attempt"] == 1  # what was given back is not charged
        assert job["attempts"][-1]["worker_id"] == other.worker_id


def test_a_stopped_worker_that_wakes_up_too_late_changes_nothing(farm: Farm) -> None:
    with farm.worker("sleepy-1") as one, farm.worker("sleepy-2") as two:
        job_id = submit_long(farm)
        sleeper, other = holder(farm.building(job_id), one, two)
        sleeper.signal(signal.SIGSTOP)
        try:
            job = farm.wait_for(job_id, "succeeded", "failed")
        finally:
            sleeper.signal(signal.SIGCONT)
        assert outcomes(job) == ["lost", "complete"]
        assert job["attempts"][-1]["worker_id"] == other.worker_id
        wait_until("its result is discarded", lambda: "superseded" in sleeper.text())
        assert farm.job(job_id) == job
        assert len(farm.plans_of(job_id)) == 1


def test_without_redis_jobs_are_accepted_and_built(farm: Farm, tmp_path: Path) -> None:
    with farm.worker("deaf", TRTFARM_WORKER_IDLE_POLL_SECONDS=1) as worker:
        farm.redis.stop()
        try:
            done = farm.cli("build", models.small(tmp_path / "deaf.onnx", 1), "--gpu", "cc-8.9", "--json")
            assert (done.code, done.job["state"]) == (0, "succeeded"), done
        finally:
            farm.redis.start()
        # The bell is heard again: sooner than the next look by itself would be.
        assert worker.running
        done = farm.cli("build", models.small(tmp_path / "back.onnx", 2), "--gpu", "cc-8.9", "--json")
        assert (done.code, done.job["state"]) == (0, "succeeded"), done


def test_a_worker_that_hears_no_rings_finds_its_jobs_and_ends_when_idle(farm: Farm, tmp_path: Path) -> None:
    settings = {"TRTFARM_WORKER_IDLE_POLL_SECONDS": 1, "TRTFARM_WORKER_DEAF_SECONDS": 4}
    # Its consumer takes a ring before it hangs; the others wait.
    jobs = [farm.submit(models.small(tmp_path / f"{seed}.onnx", seed)) for seed in range(41, 46)]
    with farm.worker("hard-of-hearing", program=[sys.executable, "-c", DEAF], **settings) as worker:
        assert {farm.wait_for(job, "succeeded", "failed")["state"] for job in jobs} == {"succeeded"}
        assert worker.wait(60) == 1
        assert "rings wait in Redis and are not heard" in worker.text()
    farm.redis.flush()


def test_a_flushed_redis_loses_nothing(farm: Farm, tmp_path: Path) -> None:
    jobs = [farm.submit(models.small(tmp_path / f"{seed}.onnx", seed)) for seed in (11, 12, 13)]
    farm.redis.flush()
    with farm.worker("after"):
        assert {farm.wait_for(job, "succeeded", "failed")["state"] for job in jobs} == {"succeeded"}


@contextmanager
def outage(farm: Farm, postgres: services.PostgresServer) -> Iterator[None]:
    """The database refuses its clients, and drops those that it has."""
    name = sql.Identifier(make_url(farm.env["TRTFARM_DATABASE_URL"]).database or "")
    allow = sql.SQL("ALTER DATABASE {} WITH ALLOW_CONNECTIONS {}")
    postgres.execute(allow.format(name, sql.SQL("false")))
    try:
        clients = sql.SQL("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = {}")
        postgres.execute(clients.format(sql.Literal(name.as_string().strip('"'))))
        yield
    finally:
        postgres.execute(allow.format(name, sql.SQL("true")))


def test_an_outage_of_the_database_aborts_no_build(
    farm: Farm, postgres_server: services.PostgresServer
) -> None:
    with farm.worker("patient") as worker:
        job_id = submit_long(farm, model=LONGER)
        farm.building(job_id)
        child = only_child(worker)
        with outage(farm, postgres_server):
            time.sleep(2 * LEASE_SECONDS)
        job = farm.wait_for(job_id, "succeeded", "failed")
        assert (job["state"], job["attempt"], outcomes(job)) == ("succeeded", 1, ["complete"])
        assert only_child(worker) == child


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM], ids=lambda end: end.name)
def test_what_a_worker_had_finished_when_it_died_is_handed_in_by_the_next(
    farm: Farm, postgres_server: services.PostgresServer, end: signal.Signals
) -> None:
    name = f"outlived-{end.name}"
    spool = farm.folder / name / "spool"
    with farm.worker(name, TRTFARM_WORKER_DRAIN_SECONDS=1) as worker:
        job_id = submit_long(farm)
        farm.building(job_id)
        with outage(farm, postgres_server):
            wait_until("the build is done", lambda: list(spool.glob(f"{job_id}.1/manifest.json")), 60)
            worker.signal(end)
            assert worker.wait(30) == (-signal.SIGKILL if end is signal.SIGKILL else 0)
            assert list(spool.glob(f"{job_id}.1/plan"))
    with farm.worker(name):
        job = farm.wait_for(job_id, "succeeded", "failed")
        assert (job["state"], job["attempt"], outcomes(job)) == ("succeeded", 1, ["complete"])
        assert job["attempts"][0]["worker_id"] == worker.worker_id
        wait_until("the spool is empty", lambda: not list(spool.iterdir()))


@pytest.mark.parametrize("damage", ["removed", "corrupted"])
def test_a_damaged_plan_is_built_again(farm: Farm, tmp_path: Path, damage: str) -> None:
    model = models.small(tmp_path / "model.onnx", seed=21 + len(damage))
    with farm.worker("rebuild"):
        first = farm.cli("build", model, "--gpu", "cc-8.9", "--json").job
        assert first["disposition"] == "created"
        blob = farm.plan_file(first["plan"]["digest"])
        data = blob.read_bytes()
        blob.unlink()
        if damage == "corrupted":
            blob.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        again = farm.cli("build", model, "--gpu", "cc-8.9", "-o", tmp_path / "plan", "--json").job
        assert (again["state"], again["disposition"]) == ("succeeded", "created")
        assert again["job_id"] != first["job_id"]
        assert again["plan"]["digest"] == first["plan"]["digest"]
        assert (tmp_path / "plan").read_bytes() == data
        assert farm.cli("build", model, "--gpu", "cc-8.9", "--json").job["disposition"] == "reused"


def test_an_upload_survives_the_death_of_the_api(
    postgres_server: services.PostgresServer, tmp_path: Path
) -> None:
    model = models.with_external_data(tmp_path / "model.onnx", UPLOAD_LAYERS, UPLOAD_SIDE)
    size_bytes = model.with_suffix(".bin").stat().st_size
    build = ["build", model, "--gpu", "cc-8.9", "--runtime", f"tensorrt-rtx-{RTX_VERSION}"]
    build += ["--wait-for-worker", "--detach", "--json"]
    with a_farm(tmp_path, postgres_server) as farm:

        def staged_bytes() -> int:
            staged = (path for path in farm.folder.glob("staging/*") if path.name != "admin.key")
            return sum(path.stat().st_size for path in staged)

        with (
            farm.api() as api,
            running([TRTFARM, *build], farm.client_env, tmp_path / "cli.json") as cli,
        ):
            wait_until("a part has arrived", lambda: staged_bytes() > size_bytes // 4)
            api.kill()
            kept = staged_bytes()
            assert kept < size_bytes
            with farm.api():
                # It goes on by itself; if the API was away for longer than it has patience, once more.
                if cli.wait(60) == 0:
                    job = json.loads(cli.text())["jobs"][0]
                else:
                    assert json.loads(cli.text())["error"]["code"] == "FARM_UNREACHABLE"
                    job = farm.cli(*build).job
                assert (job["state"], job["disposition"]) == ("queued", "created")
                assert (
                    metric(farm, "trtfarm_uploaded_bytes_total") <= size_bytes + model.stat().st_size - kept
                )
        farm.check_logs()


def metric(farm: Farm, name: str) -> float:
    lines = farm.http.get("/metrics").text.splitlines()
    (value,) = [line.split()[1] for line in lines if line.startswith(f"{name} ")]
    return float(value)
