"""The farm in one process: no server, no Redis, no PostgreSQL."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from port_for import select_random

from tests.acceptance import models
from tests.acceptance.farms import TRTFARM, Done, run_cli
from tests.acceptance.processes import Process, clean_environment, running, wait_until

CAPABILITIES = {"cc-7.5", "cc-8.0", "cc-8.6", "cc-8.9", "cc-12.0", "cc-12.1"}
LONG = models.light("inception_v2")
RTX_VERSION = importlib.metadata.version("tensorrt-rtx")


@dataclass(frozen=True)
class Shell:
    """A person's shell with a ``TRTFARM_HOME`` of its own."""

    folder: Path

    @property
    def env(self) -> dict[str, str]:
        return clean_environment() | {"TRTFARM_HOME": str(self.folder / "home")}

    def run(self, *arguments: str | Path) -> Done:
        return run_cli(*arguments, env=self.env)

    @contextmanager
    def start(self, *arguments: str | Path) -> Iterator[Process]:
        log = self.folder / f"{arguments[0]}-{len(list(self.folder.glob('*.log')))}.log"
        with running([TRTFARM, *arguments], self.env, log) as process:
            yield process

    def building(self) -> None:
        """Waits until TensorRT writes the log of some build."""
        logs = self.folder / "home/scratch/spool"
        wait_until("a build is under way", lambda: [p for p in logs.glob("*/build.log") if p.stat().st_size])

    def only_job(self) -> dict[str, str]:
        (job,) = self.run("job", "list", "--json").document["jobs"]
        return dict(job)


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


def test_demo(shell: Shell) -> None:
    done = shell.run("demo", "--json")
    assert done.code == 0, done
    document = done.document
    for model in ("squeezenet", "resnet50"):
        rows = {row["job"]["target"]["gpu"]: row for row in document["first"] if row["model"] == model}
        assert set(rows) == CAPABILITIES
        assert {row["disposition"] for row in rows.values()} == {"created"}
        if model == "resnet50":
            refused = rows.pop("cc-7.5")["job"]
            assert (refused["state"], refused["error"]["code"]) == ("failed", "UNSUPPORTED_ON_TARGET")
        for row in rows.values():
            assert row["job"]["state"] == "succeeded"
            assert row["job"]["build_seconds"] > 0
            assert row["job"]["plan"]["size_bytes"] > 10**6
    built = {row["job"]["plan"]["digest"] for row in document["first"] if "plan" in row["job"]}
    again = [row for row in document["again"] if row["job"]["state"] == "succeeded"]
    assert len(again) == 11
    assert {row["disposition"] for row in again} == {"reused"}
    assert {row["job"]["plan"]["digest"] for row in again} == built
    pulled = Path(document["pulled"]).read_bytes()
    assert "sha256:" + hashlib.sha256(pulled).hexdigest() in built


def test_a_second_build_is_reused(shell: Shell, tmp_path: Path) -> None:
    command = ("build", models.light("squeezenet"), "--gpu", "l4", "--gpu", "cc-8.9", "--json")
    first, again = shell.run(*command), shell.run(*command)
    assert (first.code, again.code) == (0, 0)
    # An l4 has capability 8.9, and shares the plan: the second target of the same call joined the first.
    assert [job["disposition"] for job in first.document["jobs"]] == ["created", "joined"]
    assert [job["disposition"] for job in again.document["jobs"]] == ["reused", "reused"]
    for job in first.document["jobs"]:
        data = Path(job["plan"]["path"]).read_bytes()
        assert "sha256:" + hashlib.sha256(data).hexdigest() == job["plan"]["digest"]


def test_two_builds_at_the_same_time_in_one_home(shell: Shell, tmp_path: Path) -> None:
    paths = [models.light("resnet50"), models.light("shufflenet")]
    commands = [("build", path, "--gpu", "cc-8.9", "--json") for path in paths]
    with shell.start(*commands[0]) as one, shell.start(*commands[1]) as two:
        assert (one.wait(120), two.wait(120)) == (0, 0), (one.text(), two.text())
        jobs = [json.loads(process.text())["jobs"][0] for process in (one, two)]
    assert [(job["state"], job["disposition"]) for job in jobs] == [("succeeded", "created")] * 2
    for job in jobs:
        attempts = shell.run("job", "show", job["job_id"], "--json").document["attempts"]
        assert attempts[-1]["outcome"] == "complete"
        # A machine that is busy for longer than a lease loses one.
        assert {attempt["outcome"] for attempt in attempts[:-1]} <= {"released", "lost"}


def test_ctrl_c_leaves_the_job_queued_and_watch_finishes_it(shell: Shell) -> None:
    with shell.start("build", LONG, "--gpu", "cc-8.9") as build:
        shell.building()
        build.signal(signal.SIGINT)
        assert build.wait(20) == 130
        said = build.text()
    job = shell.only_job()
    assert job["state"] == "queued"
    assert f"trtfarm job watch {job['job_id']}" in said
    assert "Traceback" not in said
    watched = shell.run("job", "watch", job["job_id"], "--json")
    assert watched.code == 0, watched
    assert watched.document["state"] == "succeeded"
    assert [attempt["outcome"] for attempt in watched.document["attempts"]] == ["released", "complete"]


def test_a_build_that_was_killed_is_taken_up_by_the_next(shell: Shell, tmp_path: Path) -> None:
    with shell.start("build", LONG, "--gpu", "cc-8.9") as build:
        shell.building()
        build.kill()
    done = shell.run("build", LONG, "--gpu", "cc-8.9", "--json")
    assert done.code == 0, done
    assert (done.job["state"], done.job["disposition"]) == ("succeeded", "joined")


def test_doctor(shell: Shell) -> None:
    done = shell.run("doctor", "--json")
    assert done.code == 0, done
    checks = {check["name"]: check for check in done.document["checks"]}
    assert checks["tensorrt-rtx"]["ok"]
    assert checks["server parts"]["ok"]
    assert checks["farm"]["ok"]
    assert str(shell.folder) in checks["farm"]["text"]
    assert shell.run("doctor").code == 0


def test_doctor_with_a_farm_that_does_not_answer(shell: Shell) -> None:
    env = shell.env | {"TRTFARM_URL": f"http://127.0.0.1:{select_random()}"}
    done = run_cli("doctor", "--json", env=env)
    assert done.code == 1
    (farm,) = [check for check in done.document["checks"] if check["name"] == "farm"]
    assert not farm["ok"]
    assert farm["advice"]


def test_serve_embedded(shell: Shell, tmp_path: Path) -> None:
    port = select_random()
    url = f"http://127.0.0.1:{port}"

    def answers() -> bool:
        assert server.running, server.text()
        try:
            return httpx.get(f"{url}/readyz", trust_env=False).is_success
        except httpx.TransportError:
            return False

    with shell.start("serve", "--embedded", "--port", str(port)) as server:
        wait_until("the API answers", answers, 60)
        model = models.small(tmp_path / "model.onnx", seed=1)
        command, elsewhere = ("build", model, "--gpu", "cc-8.9", "--json"), shell.env | {"TRTFARM_URL": url}
        refused = run_cli(*command, env=elsewhere)
        assert (refused.code, refused.error["code"]) == (4, "AUTH_REQUIRED"), refused
        assert "$TRTFARM_HOME/token" in refused.error["hint"]
        token = (shell.folder / "home/token").read_text().strip()
        assert token not in server.text()
        remote = run_cli(*command, env=elsewhere | {"TRTFARM_API_KEY": token})
        assert (remote.code, remote.job["disposition"]) == (0, "created"), remote
        # A command in the same home is served by the process that runs it.
        beside = shell.run("build", model, "--gpu", "cc-8.9", "--json")
        assert (beside.code, beside.job["disposition"]) == (0, "reused"), beside
        second = shell.run("serve", "--embedded", "--port", str(select_random()))
        assert second.code == 2
        assert "Another trtfarm runs" in second.err

        detached = shell.run("build", LONG, "--gpu", "cc-8.9", "--detach", "--json").job
        shell.building()
        server.signal(signal.SIGTERM)
        assert server.wait(20) == 0, server.text()
        assert "Traceback" not in server.text()
    job = shell.run("job", "show", detached["job_id"], "--json").document
    assert job["state"] == "queued"
    assert [attempt["outcome"] for attempt in job["attempts"]] == ["released"]


def test_serve_embedded_stays_on_this_machine(shell: Shell) -> None:
    done = shell.run("serve", "--embedded", "--host", "0.0.0.0")
    assert done.code == 2
    assert "loopback" in done.err


def test_a_campaign(shell: Shell) -> None:
    """Declared, left alone, come back to, and declared again."""
    model = models.small(shell.folder / "small.onnx", seed=1)
    command = ("campaign", "submit", model, "--gpu", "rtx-4090", "--gpu", "l4", "--gpu", "cc-12.0")
    options = ("--config", "plain=", "--config", "exact=--noTF32", "--name", "mine", "--json")
    wanted = (*command, *options, "--runtime", f"tensorrt-rtx-{RTX_VERSION}", "--wait-for-worker")
    detached = shell.run(*wanted, "--detach")
    assert detached.code == 0, detached
    assert [job["state"] for job in detached.document["jobs"]] == ["queued"] * 4
    cancelled = shell.run("campaign", "cancel", "mine")
    assert "mine: 4 cancelled, 0 being cancelled. Take it up again: trtfarm campaign fill" in cancelled.err
    (listed,) = shell.run("campaign", "list", "--json").document["campaigns"]
    assert (listed["name"], listed["coverage"]["holes"], listed["cancelled_at"] is None) == ("mine", 4, False)
    filled = shell.run("campaign", "fill", "mine", "--detach")
    assert filled.code == 0, filled
    assert "4 jobs created" in filled.err
    assert "No worker is there now for" in filled.err
    watched = shell.run("campaign", "show", "mine", "--watch")
    assert watched.code == 0, watched
    assert "mine: 4/4 built." in watched.err
    again = shell.run(*command, *options)
    assert again.code == 0, again
    assert {job["disposition"] for job in again.document["jobs"]} == {"reused"}
    assert {(job["config"], job["target"]["gpu"]) for job in again.document["jobs"]} == {
        (config, gpu) for config in ("plain", "exact") for gpu in ("cc-8.9", "cc-12.0")
    }
    assert all(Path(job["plan"]["path"]).is_file() for job in again.document["jobs"])
    for gpu in ("l4", "NVIDIA GeForce RTX 4090"):
        plans = shell.run("plan", "list", "--gpu", gpu, "--json").document["plans"]
        assert [plan["target"]["gpu"] for plan in plans] == ["cc-8.9"] * 2
