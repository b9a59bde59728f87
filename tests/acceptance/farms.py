"""A farm of real processes: PostgreSQL, a Redis of its own, ``trtfarm serve`` and workers."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from port_for import select_random
from redis import Redis
from redis.exceptions import RedisError

from tests import services
from tests.acceptance.processes import Process, clean_environment, running, wait_until

TRTFARM = Path(sys.executable).with_name("trtfarm")
HOST = "127.0.0.1"
_CLI_SECONDS = 180
_START_SECONDS = 60
_WORKER = re.compile(r"worker ([0-9a-f-]{36}) builds for")


@dataclass(frozen=True)
class Done:
    """A command that has ended."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """All of standard output, which must be one JSON document."""
        return json.loads(self.out)

    @property
    def job(self) -> dict[str, Any]:
        """The only job of a ``build``."""
        (job,) = self.document["jobs"]
        return dict(job)

    @property
    def error(self) -> dict[str, Any]:
        return dict(self.document["error"])


def run_cli(*arguments: str | Path, env: Mapping[str, str], seconds: float = _CLI_SECONDS) -> Done:
    """Runs ``trtfarm`` to its end. A traceback is a failure, whatever the test is about."""
    done = subprocess.run(
        [str(TRTFARM), *map(str, arguments)],
        env=env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=seconds,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return Done(done.returncode, done.stdout, done.stderr)


class RedisProcess:
    """A Redis that can be killed and started again on its port. It keeps nothing."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.port = select_random()
        self._stack = ExitStack()
        self.url = f"redis://{HOST}:{self.port}/0"

    def start(self) -> None:
        binary = services.redis_on_path() or services.redis_in_wheel()
        assert binary is not None
        command = [binary, "--bind", HOST, "--port", str(self.port), "--save", "", "--dir", self._folder]
        log = self._folder / "redis.log"
        self._stack.enter_context(running(command, clean_environment(), log))
        wait_until("Redis answers", self.answers)

    def answers(self) -> bool:
        with Redis.from_url(self.url) as client:
            try:
                return bool(client.ping())
            except RedisError:
                return False

    def stop(self) -> None:
        self._stack.close()

    def flush(self) -> None:
        with Redis.from_url(self.url) as client:
            client.flushall()


class Worker(Process):
    """Attributes: ``worker_id``, as the farm knows it."""

    worker_id: str = ""


class Farm:
    """Where a farm's parts are, and its clients. ``settings`` are environment variables for all parts.

    Its first API makes an admin key, which is everybody's here.
    """

    def __init__(self, folder: Path, database_url: str, redis: RedisProcess, **settings: object) -> None:
        self.folder = folder
        self.redis = redis
        self.port = select_random()
        self.url = f"http://{HOST}:{self.port}"
        self.logs: list[Path] = []
        self.env = clean_environment() | {
            "TRTFARM_HOME": str(folder / "home"),
            "TRTFARM_DATABASE_URL": database_url,
            "TRTFARM_REDIS_URL": redis.url,
            "TRTFARM_STORE_URL": (folder / "artifacts").as_uri(),
            "TRTFARM_SERVER_PORT": str(self.port),
            "TRTFARM_SERVER_STAGING": str(folder / "staging"),
            "TRTFARM_WORKER_SLOTS": "1",
            **{name: str(value) for name, value in settings.items()},
        }
        self.http = httpx.Client(base_url=self.url, timeout=30, trust_env=False)

    @contextmanager
    def api(self) -> Iterator[Process]:
        log = self._log("api")
        with running([TRTFARM, "serve"], self.env, log) as process:
            wait_until("the API answers", lambda: self.ready(process), _START_SECONDS)
            self.http.headers["Authorization"] = f"Bearer {self.key}"
            yield process

    @property
    def key(self) -> str:
        """As the first start has written it."""
        return (self.folder / "staging/admin.key").read_text().strip()

    def ready(self, api: Process) -> bool:
        assert api.running, api.text()
        try:
            return self.http.get("/readyz").is_success
        except httpx.TransportError:
            return False

    @contextmanager
    def worker(
        self, name: str, program: Sequence[str | Path] = (TRTFARM,), **settings: object
    ) -> Iterator[Worker]:
        """A worker with one slot and a scratch folder of its own, ready to claim."""
        env = self.env | {"TRTFARM_WORKER_SCRATCH": str(self.folder / name)}
        env |= {key: str(value) for key, value in settings.items()}
        log = self._log(name)
        earlier = len(log.read_text()) if log.exists() else 0
        worker = Worker([*program, "worker"], env, log)

        def registered() -> re.Match[str] | None:
            assert worker.running, worker.text()
            return _WORKER.search(worker.text(), earlier)

        try:
            worker.worker_id = wait_until(f"{name} is ready", registered, _START_SECONDS)[1]
            yield worker
        finally:
            worker.stop()

    def cli(self, *arguments: str | Path, seconds: float = _CLI_SECONDS) -> Done:
        return run_cli(*arguments, env=self.client_env, seconds=seconds)

    @property
    def client_env(self) -> dict[str, str]:
        """What a person's shell has: the farm's address, and none of its settings."""
        return clean_environment() | {
            "TRTFARM_URL": self.url,
            "TRTFARM_API_KEY": self.key,
            "TRTFARM_HOME": str(self.folder / "home"),
        }

    def submit(self, model: Path, *options: str, gpu: str = "cc-8.9") -> str:
        """The id of a build's job, which goes on by itself."""
        done = self.cli("build", model, "--gpu", gpu, "--detach", "--json", *options)
        assert done.code == 0, done
        return str(done.job["job_id"])

    def job(self, job_id: str) -> dict[str, Any]:
        answer = self.http.get(f"/v1/jobs/{job_id}")
        assert answer.is_success, answer.text
        return dict(answer.json())

    def wait_for(self, job_id: str, *states: str, seconds: float = 90) -> dict[str, Any]:
        def look() -> dict[str, Any] | None:
            job = self.job(job_id)
            return job if job["state"] in states else None

        return wait_until(f"job {job_id} is {' or '.join(states)}", look, seconds)

    def building(self, job_id: str) -> dict[str, Any]:
        """Waits until TensorRT is at work."""

        def look() -> dict[str, Any] | None:
            job = self.job(job_id)
            assert job["state"] in {"queued", "running"}, job
            stage = (job["progress"] or {}).get("stage")
            return job if stage not in {None, "fetching model", "parsing"} else None

        return wait_until(f"job {job_id} is being built", look)

    def plan_file(self, digest: str) -> Path:
        """Where the artifact store keeps a plan."""
        name = digest.removeprefix("sha256:")
        return self.folder / "artifacts" / "sha256" / name[:2] / name[2:]

    def plans_of(self, job_id: str) -> list[dict[str, Any]]:
        """Every plan that a job ever gave."""
        plans = self.http.get("/v1/plans", params={"limit": 500}).json()["plans"]
        return [plan for plan in plans if plan["job_id"] == job_id]

    def check_logs(self) -> None:
        """No part has met what its authors had not thought of."""
        for log in self.logs:
            text = log.read_text(errors="replace")
            assert "Traceback" not in text, f"{log}:\n{text[-6000:]}"

    def _log(self, name: str) -> Path:
        log = self.folder / f"{name}.log"
        if log not in self.logs:
            self.logs.append(log)
        return log


@contextmanager
def a_farm(folder: Path, postgres: services.PostgresServer, **settings: object) -> Iterator[Farm]:
    """A farm with its database made and its Redis up; no other part runs yet."""
    redis = RedisProcess(folder)
    with postgres.database() as database_url, ExitStack() as stack:
        stack.callback(redis.stop)
        redis.start()
        farm = Farm(folder, database_url, redis, **settings)
        stack.callback(farm.http.close)
        done = run_cli("db", "upgrade", "--json", env=farm.env)
        assert done.code == 0, done
        yield farm
