"""The SDK against a farm, against nobody, and against somebody else."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from port_for import select_random

from tests.integration.api.wires import line_to
from tests.integration.api.world import World, onnx_model, open_farm, serving
from trtfarm import __version__
from trtfarm.contract.builder_config import BuilderConfig
from trtfarm.contract.digest import Digest
from trtfarm.contract.jobs import Disposition, JobState
from trtfarm.contract.names import ModelName
from trtfarm.contract.v1 import VERSION_HEADER, JobRequest, TargetRequest
from trtfarm.errors import (
    AuthRequiredError,
    ConfigurationError,
    FarmUnreachableError,
    IncompatibleFarmError,
    InvalidRequestError,
    JobCancelledError,
    JobTerminalError,
    ModelError,
    ModelNotFoundError,
    NotFoundError,
    OptionUnsupportedError,
    ProfileRequiredError,
    UnknownGpuError,
)
from trtfarm.inspection.manifest import manifest_of
from trtfarm.inspection.pool import InspectionPool
from trtfarm.sdk.client import FarmClient
from trtfarm_api.farm import Farm

AWAY_SECONDS = 5.0
"""Longer than a call that is not a follower's has patience."""


@pytest.fixture(scope="module")
def sdk(world: World) -> Iterator[FarmClient]:
    with FarmClient(world.url) as client:
        yield client


@pytest.fixture
def model(sdk: FarmClient, tmp_path: Path) -> Digest:
    path = tmp_path / "model.onnx"
    path.write_bytes(onnx_model())
    return sdk.upload_model(path, manifest_of(path))


def request(model: Digest, gpu: str = "cc-8.9", **more: object) -> JobRequest:
    return JobRequest(model=model, target=TargetRequest(gpu=gpu), **more)


def test_the_whole_loop(sdk: FarmClient, world: World, model: Digest, tmp_path: Path) -> None:
    assert sdk.has_model(model)
    assert [tensor.name for tensor in sdk.model(model).inputs] == ["x"]
    made = sdk.submit(request(model))
    assert (made.disposition, made.job.state) == (Disposition.CREATED, JobState.QUEUED)
    job_id = made.job.job_id
    claim = world.claim(job_id)
    assert sdk.job(job_id).state is JobState.RUNNING
    world.finish(claim, b"the plan of the loop")
    *_, done = sdk.follow(job_id)
    assert done.state is JobState.SUCCEEDED
    assert done.plan
    sdk.pull(done.plan.digest, tmp_path / "out.plan")
    assert (tmp_path / "out.plan").read_bytes() == b"the plan of the loop"
    assert sdk.submit(request(model)).disposition is Disposition.REUSED
    assert sdk.plan(done.plan.digest) == done.plan == sdk.plans(model=model).plans[0]
    assert done.plan.io
    assert sdk.artifact(done.plan.io) == b"{}"
    assert sdk.log(job_id) == "built\n"
    assert [job.job_id for job in sdk.jobs(model=model, states=(JobState.SUCCEEDED,)).jobs] == [job_id]
    assert {worker.runtime for worker in sdk.fleet().workers} == {
        "tensorrt-rtx-1.7.1.116",
        "tensorrt-10.16.1",
    }


def test_cancel_and_retry(sdk: FarmClient, model: Digest) -> None:
    job_id = sdk.submit(request(model)).job.job_id
    assert sdk.cancel(job_id).state is JobState.CANCELLED
    with pytest.raises(JobTerminalError):
        sdk.cancel(job_id)
    assert sdk.retry(job_id).disposition is Disposition.CREATED


def test_refusals_are_the_errors_they_are(sdk: FarmClient, model: Digest, tmp_path: Path) -> None:
    with pytest.raises(UnknownGpuError) as caught:
        sdk.submit(request(model, "rtx-4099"))
    assert "rtx-4090" in (caught.value.hint or "")
    with pytest.raises(OptionUnsupportedError) as unsupported:
        sdk.submit(request(model, config=BuilderConfig(bf16=True)))
    assert unsupported.value.details["option"] == "--bf16"
    nothing = Digest.of_bytes(b"nothing")
    with pytest.raises(ModelNotFoundError):
        sdk.submit(request(nothing))
    assert not sdk.has_model(nothing)
    for call in (lambda: sdk.job("x"), lambda: sdk.log("x"), lambda: sdk.plan(nothing)):
        with pytest.raises(NotFoundError):
            call()
    with pytest.raises(NotFoundError):
        next(sdk.follow("x"))
    with pytest.raises(NotFoundError):
        sdk.pull(nothing, tmp_path / "x")
    path = tmp_path / "dynamic.onnx"
    path.write_bytes(onnx_model(shape=("n", 4)))
    with pytest.raises(ProfileRequiredError):
        sdk.submit(request(sdk.upload_model(path, manifest_of(path))))


def test_keys(farm_url: str, tmp_path: Path, inspection: InspectionPool) -> None:
    from trtfarm.contract.jobs import Scope
    from trtfarm_db.repositories.keys import KeyRepository

    farm = open_farm(farm_url, tmp_path, inspection, require_keys=True)
    with farm.database.transaction() as connection:
        _, key = KeyRepository(connection).create("sdk", Scope.READ)
    with serving(farm) as url:
        with FarmClient(url) as client, pytest.raises(AuthRequiredError) as caught:
            client.fleet()
        assert "TRTFARM_API_KEY" in (caught.value.hint or "")
        with FarmClient(url, key) as client:
            assert client.fleet()
    farm.database.close()


def test_following_while_it_happens(sdk: FarmClient, world: World, model: Digest) -> None:
    job_id = sdk.submit(request(model)).job.job_id
    jobs = sdk.follow(job_id)
    assert next(jobs).state is JobState.QUEUED
    claim = world.claim(job_id)
    assert next(jobs).state is JobState.RUNNING
    world.renew(claim, "building", 0.75)
    progress = next(jobs).progress
    assert progress
    assert progress.fraction == 0.75
    world.finish(claim, b"followed by the sdk")
    assert [job.state for job in jobs] == [JobState.SUCCEEDED]


def test_following_over_a_broken_line(world: World, model: Digest) -> None:
    """No event is missed and none comes twice."""
    with line_to(world.url) as line, FarmClient(line.url) as client:
        job_id = client.submit(request(model)).job.job_id
        jobs = client.follow(job_id)
        assert next(jobs).state is JobState.QUEUED
        line.cut()
        claim = world.claim(job_id)
        threading.Timer(0.3, line.mend).start()
        assert next(jobs).state is JobState.RUNNING
        line.cut()
        line.mend()
        world.finish(claim, b"over a broken line")
        assert [job.state for job in jobs] == [JobState.SUCCEEDED]


def test_following_through_a_restart(
    another_farm: Farm, world: World, sdk: FarmClient, model: Digest
) -> None:
    """Of a server that shares the module's database."""
    job_id = sdk.submit(request(model)).job.job_id
    port = select_random()
    with FarmClient(f"http://127.0.0.1:{port}") as client:
        jobs = client.follow(job_id)
        with serving(another_farm, port):
            assert next(jobs).state is JobState.QUEUED
            line = world.claim(job_id)
            assert next(jobs).state is JobState.RUNNING
            completed = client.as_completed([client.build(onnx_model(), "cc-8.9"), job_id])
            world.finish(line, b"through a restart")
            assert next(completed).job_id == job_id
            # The stream has not been read to its end when the server goes.
        with ThreadPoolExecutor(2) as threads:
            end, last = threads.submit(list, jobs), threads.submit(next, completed)
            time.sleep(AWAY_SECONDS)
            with serving(another_farm, port):
                assert [job.state for job in end.result(30)] == [JobState.SUCCEEDED]
                (waiting,) = sdk.jobs(states=(JobState.QUEUED,), limit=1).jobs
                sdk.cancel(waiting)
                assert last.result(30).job_id == waiting.job_id
                with pytest.raises(JobCancelledError):
                    sdk.job(waiting).raise_for_state()


# --- nobody, or somebody else ---


def test_nobody_answers(tmp_path: Path) -> None:
    port = select_random()
    path = tmp_path / "model.onnx"
    path.write_bytes(onnx_model())
    digest = Digest.of_bytes(b"x")
    with FarmClient(f"http://127.0.0.1:{port}") as client:
        for call in (
            client.fleet,
            lambda: client.submit(request(digest)),
            lambda: client.upload_model(path, manifest_of(path)),
            lambda: client.pull(digest, tmp_path / "plan"),
        ):
            with pytest.raises(FarmUnreachableError) as caught:
                call()
            assert caught.value.code == "FARM_UNREACHABLE"
            assert "TRTFARM_URL" in (caught.value.hint or "")
    assert not (tmp_path / "plan").exists()


@pytest.mark.parametrize(
    "url", ["", "farm.example:8420", "ftp://farm.example", "http://", "http://x:port", "/x"]
)
def test_what_is_no_address(url: str) -> None:
    with pytest.raises(ConfigurationError, match="is no address of a farm"):
        FarmClient(url)


@contextlib.contextmanager
def somebody(status: int, body: bytes, kind: str, **headers: str) -> Iterator[str]:
    """A web server that is no farm, and gives one answer to everything."""

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.send_response(status)
            for name, value in {"Content-Type": kind, "Content-Length": str(len(body)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def __getattr__(self, name: str) -> Callable[[], None]:
            if name.startswith("do_"):
                return self._answer
            raise AttributeError(name)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (200, b"<html>Welcome</html>", "text/html"),
        (200, b"", "text/plain"),
        (200, b'{"status": "ok"}', "application/json"),
        (200, b"[]", "application/json"),
        (200, b"\xff\xfe\xfd", "application/octet-stream"),
        (301, b"", "text/html"),
        (401, b"<html>Log in</html>", "text/html"),
        (404, b'{"detail": "Not Found"}', "application/json"),
        (404, b"[1]", "application/json"),
        (404, b"\xe4\xf6\xfc", "text/html"),
        (404, b'{"code": "NOT_FOUND", "detail": "x", "details": [1]}', "application/json"),
        (418, b"", "text/plain"),
    ],
)
def test_somebody_else_answers(status: int, body: bytes, kind: str, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(onnx_model())
    digest = Digest.of_bytes(b"x")
    with (
        somebody(status, body, kind, Location="https://other.example/") as url,
        FarmClient(url) as client,
    ):
        for call in (
            client.fleet,
            lambda: client.job("x"),
            lambda: client.submit(request(digest)),
            lambda: client.upload_model(path, manifest_of(path)),
        ):
            with pytest.raises(FarmUnreachableError, match="not as a trtfarm does") as caught:
                call()
            assert caught.value.hint == "Check TRTFARM_URL."


def test_somebody_else_answers_a_follower() -> None:
    with (
        somebody(200, b"<html></html>", "text/html") as url,
        FarmClient(url) as client,
        pytest.raises(FarmUnreachableError, match="not as a trtfarm does"),
    ):
        next(client.follow("x"))


def test_a_farm_that_knows_more_codes() -> None:
    body = b'{"code": "QUOTA_JOBS", "detail": "Too many jobs.", "hint": "Wait."}'
    with somebody(429, body, "application/problem+json") as url, FarmClient(url) as client:
        with pytest.raises(Exception, match="Too many jobs") as caught:
            client.fleet()
        assert caught.value.code == "QUOTA_JOBS"


def test_a_newer_farm_says_more(sdk: FarmClient, world: World, model: Digest) -> None:
    """Unknown fields at every depth of an answer are passed over; those of a request are refused."""
    job_id = sdk.submit(request(model)).job.job_id
    world.finish(world.claim(job_id), b"said more of")
    known = sdk.job(job_id)

    def newer(value: object) -> object:
        if isinstance(value, dict):
            return {name: newer(each) for name, each in value.items()} | {"added_later": [1]}
        return [newer(each) for each in value] if isinstance(value, list) else value

    document = known.model_dump(mode="json") | {"profiles": [{"x": {"min": [1], "opt": [1], "max": [2]}}]}
    for name in ("attempts", "plan", "target", "config"):
        document[name] = newer(document[name])
    document["added_later"] = {"a": 1}
    body = json.dumps(document).encode()
    with somebody(200, body, "application/json") as url, FarmClient(url) as client:
        read = client.job(job_id)
    assert read.model_copy(update={"profiles": ()}) == known
    document["state"] = "hibernating"
    body = json.dumps(document).encode()
    with (
        somebody(200, body, "application/json", **{VERSION_HEADER: "9.0"}) as url,
        FarmClient(url) as client,
        pytest.raises(IncompatibleFarmError, match=r"version is 9\.0.*understand state"),
    ):
        client.job(job_id)
    assert world.http.get("/healthz").headers[VERSION_HEADER] == __version__
    refused = world.http.post("/v1/jobs", json={**request(model).model_dump(mode="json"), "added_later": 1})
    assert (refused.status_code, refused.json()["code"]) == (422, "UNKNOWN_FIELD")


def test_several_as_they_complete(sdk: FarmClient, world: World) -> None:
    made = [sdk.build(onnx_model(), "cc-8.9") for _ in range(3)]
    world.finish(world.claim(made[1].job.job_id), b"ended first")
    completed = sdk.as_completed(made)
    assert next(completed).job_id == made[1].job.job_id
    sdk.cancel(made[0])
    world.finish(world.claim(made[2].job.job_id), b"ended last")
    assert sorted(job.job_id for job in completed) == sorted(made[i].job.job_id for i in (0, 2))
    assert list(sdk.as_completed([])) == []


def test_what_a_model_may_be(
    sdk: FarmClient, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A path, also one with a colon; bytes; a digest or name, also as plain text."""
    monkeypatch.chdir(tmp_path)
    data = onnx_model()
    Path("small:prod").write_bytes(data)
    digest = sdk.upload("small:prod")
    assert digest == sdk.upload(data) == sdk.upload(tmp_path / "small:prod")
    made = sdk.build(data, "cc-8.9")
    Path("small:prod").unlink()
    sdk.tag(digest, ModelName("small:prod"))
    for model in (str(digest), digest, "small:prod", ModelName("small:prod")):
        assert sdk.build(model, "cc-8.9").job.job_id == made.job.job_id
    with pytest.raises(ModelError, match="cannot be read"):
        sdk.build("small.onnx", "cc-8.9")
    with pytest.raises(InvalidRequestError, match="priority"):
        sdk.build(digest, "cc-8.9", priority=1000)
    sdk.cancel(made)
