"""``trtfarm plan resolve`` and ``plan pull``: hits, misses, outages, lies, races."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from tests.acceptance.farms import TRTFARM, Done, run_cli
from tests.acceptance.processes import clean_environment, running
from tests.integration.api.wires import line_to
from tests.integration.api.world import RTX, Built, World
from trtfarm.cli.main import app
from trtfarm.contract.digest import Digest

L4 = ("--gpu", "NVIDIA L4", "--runtime", RTX, "--platform", "linux-x86_64")
MIB = 1 << 20


@dataclass
class Machine:
    """A machine that pulls, with a home and a working folder of its own."""

    folder: Path
    url: str

    @property
    def env(self) -> dict[str, str]:
        return clean_environment() | {"TRTFARM_HOME": str(self.folder / "home"), "TRTFARM_URL": self.url}

    @property
    def file(self) -> Path:
        return self.folder / "detector.plan"

    def pull(self, name: str, *more: str) -> Done:
        return self.run("pull", name, *L4, "-o", self.file, "--json", *more)

    def run(self, *arguments: str | Path) -> Done:
        """``trtfarm plan``, in this process: starting another takes longer than all it does."""
        done = CliRunner().invoke(app, ["plan", *map(str, arguments)], env=self.env)
        assert isinstance(done.exception, SystemExit | None), done.exception
        return Done(done.exit_code, done.stdout, done.stderr)

    def kept(self) -> list[str]:
        files = (self.folder / "home" / "pulled" / "sha256").glob("*/*")
        return sorted(path.name for path in files if path.name != ".lock")


@pytest.fixture
def machine(world: World, tmp_path: Path) -> Machine:
    return Machine(tmp_path, world.url)


def built(world: World, name: str, data: bytes, gpu: str = "cc-8.9") -> Built:
    """A plan of a model of that name."""
    plan = world.built(data, {"model": world.model(), "target": {"gpu": gpu}})
    moved = world.http.put(f"/v1/names/{name}", json={"model": plan.job["model"]})
    assert moved.status_code == 200
    return plan


def test_it_brings_what_fits_and_only_what_is_new(world: World, machine: Machine) -> None:
    plan = built(world, "pull/simple:prod", os.urandom(MIB))
    done = machine.pull("pull/simple:prod")
    assert (done.code, machine.file.read_bytes()) == (0, plan.data), done.err
    document = done.document
    assert (document["digest"], document["changed"], document["offline"]) == (plan.digest, True, False)
    assert (document["model"], document["path"]) == (plan.job["model"], str(machine.file))
    before = machine.file.stat().st_mtime_ns
    again = machine.pull("pull/simple:prod").document
    assert (again["changed"], machine.file.stat().st_mtime_ns) == (False, before)
    newer = built(world, "pull/simple:prod", os.urandom(MIB))
    assert machine.pull("pull/simple:prod").document["digest"] == newer.digest
    assert machine.file.read_bytes() == newer.data
    back = machine.pull(plan.digest)
    assert (back.document["digest"], machine.file.read_bytes()) == (plan.digest, plan.data)
    assert [path.name for path in machine.folder.iterdir() if path.name != "home"] == ["detector.plan"]


def test_a_miss_is_told_and_changes_nothing(world: World, machine: Machine) -> None:
    built(world, "pull/miss:prod", b"for Turing", "cc-7.5")
    machine.file.write_bytes(b"what was there")
    done = machine.pull("pull/miss:prod")
    assert (done.code, done.error["code"]) == (3, "NO_PLAN_FITS")
    assert "compute capability 7.5, you have 8.9" in done.error["message"]
    assert machine.file.read_bytes() == b"what was there"
    resolved = machine.run("resolve", "pull/miss:prod", *L4, "--json")
    assert (resolved.code, resolved.document["plan"]) == (3, None)
    told = machine.run("resolve", "pull/miss:prod", *L4)
    assert (told.code, "none fits" in told.out, "you have 8.9" in told.out) == (3, True, True)
    unknown = machine.pull("no/such:name")
    assert (unknown.code, unknown.error["code"]) == (3, "NAME_NOT_FOUND")


def test_on_a_miss_it_builds_if_asked(world: World, machine: Machine) -> None:
    built(world, "pull/build:prod", b"for Turing too", "cc-7.5")
    model = world.get("/v1/names/pull/build:prod")["model"]

    def work(fails: bool) -> None:
        while not (jobs := world.get(f"/v1/jobs?model={model}&state=queued")["jobs"]):
            time.sleep(0.05)
        claim = world.claim(jobs[0]["job_id"])
        world.fail(claim) if fails else world.finish(claim, b"built while one waits")

    for fails, code in ((True, 1), (False, 0)):
        worker = threading.Thread(target=work, args=(fails,), daemon=True)
        worker.start()
        done = machine.pull("pull/build:prod", "--build")
        worker.join(60)
        assert done.code == code, done.out + done.err
    assert machine.file.read_bytes() == b"built while one waits"


def test_a_machine_without_a_gpu_is_told_what_to_say(world: World, machine: Machine) -> None:
    built(world, "pull/gpu:prod", b"a plan")
    done = machine.run("pull", "pull/gpu:prod", "--json")
    assert (done.code, done.error["code"]) == (2, "CONFIGURATION")
    assert "--gpu rtx-4090" in done.error["hint"]


def test_without_the_farm_the_last_answer_counts(world: World, tmp_path: Path) -> None:
    plan = built(world, "pull/offline:prod", os.urandom(MIB))
    with line_to(world.url) as line:
        machine = Machine(tmp_path, line.url)
        assert machine.pull("pull/offline:prod").code == 0
        line.cut()
        machine.file.unlink()
        done = machine.pull("pull/offline:prod")
        assert (done.code, machine.file.read_bytes()) == (0, plan.data)
        assert (done.document["offline"], done.document["digest"]) == (True, plan.digest)
        assert done.document["age_seconds"] > 0
        told = machine.run("pull", "pull/offline:prod", *L4, "-o", machine.file)
        assert (told.code, "The farm does not answer" in told.err, " ago" in told.err) == (0, True, True)
        assert machine.pull(plan.digest).document["offline"] is True, told.err
        other = machine.pull("pull/other:prod")
        assert (other.code, other.error["code"]) == (5, "FARM_UNREACHABLE")
        machine.file.unlink()
        (name,) = machine.kept()
        kept = next((tmp_path / "home" / "pulled" / "sha256").glob(f"*/{name}"))
        kept.write_bytes(bytes(MIB))
        damaged = machine.pull("pull/offline:prod")
        assert (damaged.code, damaged.error["code"]) == (1, "BLOB_CORRUPT")
        assert not machine.file.exists()
        line.mend()
        assert machine.pull("pull/offline:prod").code == 0
        assert machine.file.read_bytes() == plan.data


class Liar(BaseHTTPRequestHandler):
    """Hands on what a farm says, but for a byte of every plan."""

    farm = ""
    lies = True

    def log_message(self, *_: Any) -> None: ...

    def do_GET(self) -> None:
        self._answer(None)

    def do_POST(self) -> None:
        self._answer(self.rfile.read(int(self.headers["Content-Length"])))

    def _answer(self, body: bytes | None) -> None:
        headers = {"Content-Type": "application/json"} if body else {}
        with httpx.Client(base_url=self.farm, trust_env=False) as http:
            answer = http.request(self.command, self.path, content=body, headers=headers)
        data = answer.content
        if self.lies and self.path.endswith("/content"):
            data = data[:100] + bytes([data[100] ^ 1]) + data[101:]
        self.send_response(answer.status_code)
        for name in ("content-type", "etag", "repr-digest"):
            if name in answer.headers:
                self.send_header(name, answer.headers[name])
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@pytest.fixture
def liar(world: World) -> Iterator[type[Liar]]:
    kind = type("ThisLiar", (Liar,), {"farm": world.url})
    server = ThreadingHTTPServer(("127.0.0.1", 0), kind)
    kind.url = f"http://127.0.0.1:{server.server_port}"  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield kind
    server.shutdown()
    server.server_close()
    thread.join()


def test_wrong_bytes_are_refused_and_reported(world: World, tmp_path: Path, liar: Any) -> None:
    plan = built(world, "pull/lie:prod", os.urandom(MIB))
    machine = Machine(tmp_path, liar.url)
    machine.file.write_bytes(b"the old plan")
    done = machine.pull("pull/lie:prod")
    assert (done.code, done.error["code"]) == (1, "BLOB_CORRUPT")
    assert plan.digest in done.error["message"]
    assert (machine.file.read_bytes(), machine.kept()) == (b"the old plan", [])
    liar.lies = False
    assert machine.pull("pull/lie:prod").code == 0
    assert machine.file.read_bytes() == plan.data


def test_a_download_that_breaks_off_goes_on(world: World, tmp_path: Path) -> None:
    plan = built(world, "pull/broken:prod", os.urandom(20 * MIB))
    with line_to(world.url, break_after=6 * MIB, breaks=3) as line:
        machine = Machine(tmp_path, line.url)
        assert machine.pull("pull/broken:prod").code == 0
        assert line.connections > 3
    assert machine.file.read_bytes() == plan.data


def test_pulls_during_an_update_are_never_torn(world: World, machine: Machine) -> None:
    """Processes at one file, some of which are killed, while the name moves."""
    name = "pull/race:prod"
    plans = [built(world, name, os.urandom(24 * MIB)) for _ in range(2)]
    known = {plan.digest for plan in plans}
    assert machine.pull(name).code == 0
    stop, seen, torn = threading.Event(), set(), []

    def read() -> None:
        while not stop.wait(0.02):
            digest = Digest.of_bytes(machine.file.read_bytes())
            seen.add(digest)
            if digest not in known:
                torn.append(digest)

    def move() -> None:
        while not stop.is_set():
            for plan in plans:
                world.http.put(f"/v1/names/{name}", json={"model": plan.job["model"]})
                stop.wait(0.3)

    def process() -> Done:
        return run_cli("plan", "pull", name, *L4, "-o", machine.file, env=machine.env)

    def killed() -> None:
        command = [TRTFARM, "plan", "pull", name, *L4, "-o", machine.file]
        with running(command, machine.env, machine.folder / f"{time.monotonic_ns()}.log") as process:
            while process.running and not list(machine.folder.glob(".detector.plan.new")):
                time.sleep(0.001)
            process.kill()

    threads = [threading.Thread(target=each, daemon=True) for each in (read, move)]
    for thread in threads:
        thread.start()
    try:
        with ThreadPoolExecutor(3) as pool:
            ended = [pool.submit(process) for _ in range(4)]
            others = [pool.submit(killed) for _ in range(2)]
            codes = [each.result().code for each in ended]
            for other in others:
                other.result()
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert (torn, codes) == ([], [0] * 4)
    assert seen <= known
    world.http.put(f"/v1/names/{name}", json={"model": plans[0].job["model"]})
    assert machine.pull(name).document["digest"] == plans[0].digest
    assert machine.file.read_bytes() == plans[0].data
