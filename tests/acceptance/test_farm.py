"""A farm with two workers: curl, the command line, and many at once."""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tests.acceptance import models
from tests.acceptance.farms import Farm
from tests.acceptance.processes import wait_until
from trtfarm.contract.target import RTX
from trtfarm.contract.v1 import JobRequest, SubmissionView, TargetRequest
from trtfarm.inspection.manifest import manifest_of
from trtfarm.sdk.client import FarmClient

JOBS = 50
THREADS = 8


def curl(farm: Farm, *arguments: str) -> tuple[int, Any]:
    """The status and the JSON document of one request."""
    command = ["curl", "--silent", "--show-error", "--max-time", "60", "--write-out", "\n%{http_code}"]
    command += ["--header", f"Authorization: Bearer {farm.key}"]
    out = subprocess.run([*command, *arguments], capture_output=True, text=True, check=True).stdout
    body, _, status = out.rpartition("\n")
    return int(status), json.loads(body) if body else None


def post(farm: Farm, url: str, document: dict[str, Any]) -> tuple[int, Any]:
    return curl(farm, "--json", json.dumps(document), url)


def patch(farm: Farm, url: str, offset: int, data: Path) -> tuple[int, Any]:
    headers = [f"Upload-Offset: {offset}", "Content-Type: application/octet-stream"]
    sent = [part for header in headers for part in ("--header", header)]
    return curl(farm, "--request", "PATCH", *sent, "--data-binary", f"@{data}", url)


def sha256sum(path: Path) -> str:
    out = subprocess.run(["sha256sum", path], capture_output=True, text=True, check=True).stdout
    return f"sha256:{out.split()[0]}"


def test_the_whole_loop_with_curl(farm: Farm, tmp_path: Path) -> None:
    model, plan = models.small(tmp_path / "curl.onnx", seed=1001), tmp_path / "curl.plan"
    size, digest = model.stat().st_size, sha256sum(model)

    status, upload = post(farm, f"{farm.url}/v1/uploads", {"digest": digest, "size_bytes": size})
    assert (status, upload["offset"], upload["complete"]) == (201, 0, False)
    status, upload = patch(farm, f"{farm.url}/v1/uploads/{upload['upload_id']}", 0, model)
    assert (status, upload["complete"], upload["model"]) == (200, True, digest)

    wanted = {"model": digest, "target": {"gpu": "rtx-4090"}}
    status, submission = post(farm, f"{farm.url}/v1/jobs", wanted)
    assert (status, submission["disposition"]) == (201, "created")
    url = f"{farm.url}/v1/jobs/{submission['job']['job_id']}"

    def ended() -> dict[str, Any] | None:
        status, job = curl(farm, url)
        assert status == 200
        return job if job["state"] not in {"queued", "running"} else None

    job = wait_until("the job has ended", ended)
    assert job["state"] == "succeeded", job
    assert job["target"]["gpu"] == "cc-8.9"  # what an rtx-4090 shares with others of its capability

    status, _ = curl(farm, "--output", str(plan), f"{farm.url}/v1/plans/{job['plan']['digest']}/content")
    assert status == 200
    assert sha256sum(plan) == job["plan"]["digest"]
    assert plan.stat().st_size == job["plan"]["size_bytes"]

    status, again = post(farm, f"{farm.url}/v1/jobs", wanted)
    assert (status, again["disposition"], again["job"]["job_id"]) == (200, "reused", job["job_id"])


def test_an_upload_that_was_cut_off_goes_on(farm: Farm, tmp_path: Path) -> None:
    model = models.small(tmp_path / "cut.onnx", seed=1002)
    data = model.read_bytes()
    (tmp_path / "first").write_bytes(data[:300])
    (tmp_path / "rest").write_bytes(data[300:])
    announced = {"digest": sha256sum(model), "size_bytes": len(data)}
    _, upload = post(farm, f"{farm.url}/v1/uploads", announced)
    url = f"{farm.url}/v1/uploads/{upload['upload_id']}"
    assert patch(farm, url, 0, tmp_path / "first")[1]["offset"] == 300

    status, refused = patch(farm, url, 0, tmp_path / "rest")
    assert (status, refused["code"], refused["details"]["offset"]) == (409, "OFFSET_MISMATCH", 300)
    status, resumed = post(farm, f"{farm.url}/v1/uploads", announced)
    assert (status, resumed["upload_id"], resumed["offset"]) == (200, upload["upload_id"], 300)
    assert patch(farm, url, 300, tmp_path / "rest")[1]["complete"]


def test_a_wrong_digest_and_an_unknown_field_are_told(farm: Farm, tmp_path: Path) -> None:
    model = models.small(tmp_path / "wrong.onnx", seed=1003)
    announced = {"digest": "sha256:" + "0" * 64, "size_bytes": model.stat().st_size}
    _, upload = post(farm, f"{farm.url}/v1/uploads", announced)
    status, problem = patch(farm, f"{farm.url}/v1/uploads/{upload['upload_id']}", 0, model)
    assert (status, problem["code"]) == (422, "DIGEST_MISMATCH")
    status, problem = post(farm, f"{farm.url}/v1/uploads", {**announced, "colour": "red"})
    assert (status, problem["code"]) == (422, "UNKNOWN_FIELD")


def test_the_whole_loop_with_the_command_line(farm: Farm, tmp_path: Path) -> None:
    model = models.small(tmp_path / "cli.onnx", seed=1004)
    first = farm.cli(
        "build", model, "--gpu", "cc-8.9", "--gpu", "cc-12.0", "-o", tmp_path / "plans", "--json"
    )
    assert first.code == 0, first
    jobs = first.document["jobs"]
    assert [(job["state"], job["disposition"]) for job in jobs] == [("succeeded", "created")] * 2
    for job in jobs:
        assert sha256sum(Path(job["plan"]["path"])) == job["plan"]["digest"]

    again = farm.cli("build", model, "--gpu", "cc-8.9", "--json").job
    assert (again["disposition"], again["plan"]["digest"]) == ("reused", jobs[0]["plan"]["digest"])
    assert again["plan"]["path"] is None  # it is on the farm, and nobody asked for it here

    shown = farm.cli("job", "show", jobs[0]["job_id"], "--json").document
    assert [attempt["outcome"] for attempt in shown["attempts"]] == ["complete"]
    assert jobs[0]["job_id"] in farm.cli("job", "list").out
    logs = farm.cli("job", "logs", jobs[0]["job_id"], "--json").document
    assert logs["log"]
    digest = jobs[0]["plan"]["digest"]
    pulled = farm.cli("plan", "pull", digest[:20], "-o", tmp_path / "pulled.plan", "--json")
    assert pulled.document["digest"] == digest
    assert sha256sum(tmp_path / "pulled.plan") == digest
    tensors = farm.cli("plan", "show", digest, "--json").document["tensors"]
    assert [each["name"] for each in tensors["inputs"]] == ["x"]
    workers = farm.cli("fleet", "--json").document["workers"]
    assert [worker["alive"] for worker in workers] == [True, True]


def test_fifty_at_once_are_built_once_each(farm: Farm, tmp_path: Path) -> None:
    paths = [models.small(tmp_path / f"{number}.onnx", seed=number) for number in range(JOBS)]
    with FarmClient(farm.url, farm.key) as client, ThreadPoolExecutor(THREADS) as pool:

        def submit(path: Path) -> SubmissionView:
            digest = client.upload_model(path, manifest_of(path))
            target = TargetRequest(gpu="cc-8.9", runtime=RTX)
            return client.submit(JobRequest(model=digest, target=target))

        # Every spec twice, a moment apart or at the same time, as chance has it.
        submissions = list(pool.map(submit, [path for path in paths for _ in range(2)]))
    made = Counter(each.disposition for each in submissions)
    assert made["created"] == JOBS
    assert made["created"] + made["joined"] + made["reused"] == 2 * JOBS
    job_ids = {each.job.job_id for each in submissions}
    assert len(job_ids) == JOBS

    jobs = [farm.wait_for(job_id, "succeeded", "failed", seconds=120) for job_id in sorted(job_ids)]
    assert {job["state"] for job in jobs} == {"succeeded"}
    attempts = [attempt for job in jobs for attempt in job["attempts"]]
    assert len(attempts) == JOBS
    assert {attempt["outcome"] for attempt in attempts} == {"complete"}
    workers = {worker["worker_id"] for worker in farm.http.get("/v1/fleet").json()["workers"]}
    assert {attempt["worker_id"] for attempt in attempts} == workers
    assert len(workers) == 2
    for job in jobs:
        assert len(farm.plans_of(job["job_id"])) == 1
        content = farm.http.get(f"/v1/plans/{job['plan']['digest']}/content").content
        assert "sha256:" + hashlib.sha256(content).hexdigest() == job["plan"]["digest"]


def test_a_refusal_of_tensorrt_is_the_jobs_error(farm: Farm) -> None:
    done = farm.cli("build", models.light("resnet50"), "--gpu", "cc-7.5", "--json")
    assert done.code == 1
    assert done.job["state"] == "failed"
    assert done.job["plan"] is None
    assert done.job["error"]["code"] == "UNSUPPORTED_ON_TARGET"
    assert done.job["error"]["hint"]
    shown = farm.job(done.job["job_id"])
    assert [attempt["outcome"] for attempt in shown["attempts"]] == ["failed"]  # trying again would not help
    log = farm.cli("job", "logs", done.job["job_id"])
    assert log.code == 0
    assert log.out


def test_an_unknown_operator_is_named(farm: Farm, tmp_path: Path) -> None:
    done = farm.cli("build", models.with_unknown_operator(tmp_path / "odd.onnx"), "--gpu", "cc-8.9", "--json")
    assert done.code == 1
    error = done.job["error"]
    assert error["code"] == "ONNX_UNSUPPORTED_OP"
    assert "FancyAttention" in error["message"]
    assert "the_odd_one" in error["message"]
    nodes = error["details"]["nodes"]
    assert [(node["operator"], node["node"]) for node in nodes] == [("FancyAttention", "the_odd_one")]
