"""A campaign of nine models for six capabilities, through the loss of a worker and of a plan."""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import services
from tests.acceptance import models
from tests.acceptance.farms import TRTFARM, Farm, Worker, a_farm
from tests.acceptance.processes import running, wait_until

CAPABILITIES = ("cc-7.5", "cc-8.0", "cc-8.6", "cc-8.9", "cc-12.0", "cc-12.1")
CELLS, BUILT, REFUSED = 54, 47, 7
PATIENCE_SECONDS = 300


@pytest.fixture(scope="module")
def farm(
    postgres_server: services.PostgresServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Farm]:
    """Silence is noticed within seconds; the tests start the workers."""
    with (
        a_farm(
            tmp_path_factory.mktemp("farm"),
            postgres_server,
            TRTFARM_WORKER_LEASE_SECONDS=4,
            TRTFARM_WORKER_HEARTBEAT_SECONDS=1,
            TRTFARM_SERVER_DISPATCH_SECONDS=0.5,
            TRTFARM_SERVER_RETRY='{"backoff_seconds": 0.2}',
            TRTFARM_WORKER_RETRY='{"backoff_seconds": 0.2}',
        ) as farm,
        farm.api(),
    ):
        yield farm
        farm.check_logs()


def declared(folder: Path) -> Path:
    """A campaign's file in a repository of models, with paths relative to it."""
    (folder / "models").mkdir()
    lines = []
    for name in models.LIGHT:
        (folder / "models" / f"{name}.onnx").symlink_to(models.light(name))
        lines.append(f'{name} = "models/{name}.onnx"')
    file = folder / "campaign.toml"
    gpus = ", ".join(f'"{capability}"' for capability in CAPABILITIES)
    head = f'name = "everything"\ngpu = [{gpus}]\nruntime = "tensorrt-rtx"\npriority = 5\n'
    file.write_text(head + "\n[models]\n" + "\n".join(lines) + "\n")
    return file


def campaign(farm: Farm, *, check: bool = False) -> dict[str, Any]:
    answer = farm.http.get("/v1/campaigns/everything", params={"check": check})
    assert answer.is_success, answer.text
    return dict(answer.json())


def covered(farm: Farm) -> int:
    """How many plans it has; asked now and then, since the machine has builds to do."""
    time.sleep(0.5)
    answer = farm.http.get("/v1/campaigns/everything")
    return int(answer.json()["coverage"]["covered"]) if answer.is_success else 0


def jobs_of(document: dict[str, Any], **wanted: object) -> list[dict[str, Any]]:
    return [job for job in document["jobs"] if all(job[key] == value for key, value in wanted.items())]


def every_job(farm: Farm) -> list[dict[str, Any]]:
    return list(farm.http.get("/v1/jobs", params={"limit": 500}).json()["jobs"])


def job_of(farm: Farm, worker: Worker) -> str | None:
    """What it is at."""
    time.sleep(0.05)
    jobs = farm.http.get("/v1/jobs", params={"state": "running"}).json()["jobs"]
    return next((job["job_id"] for job in jobs if job["worker_id"] == worker.worker_id), None)


@pytest.mark.timeout(900)  # half a minute where nothing else runs
def test_nine_models_for_six_capabilities(farm: Farm, tmp_path: Path) -> None:
    file = declared(tmp_path)
    with farm.worker("one") as one, farm.worker("two"):
        document = _with_a_worker_lost(farm, file, one)
        _check_the_first(farm, document)
        _check_that_a_second_builds_nothing(farm, file, document)
        _check_coverage(farm)
        _check_fill(farm, document)


def _with_a_worker_lost(farm: Farm, file: Path, victim: Worker) -> dict[str, Any]:
    """Submitted, interrupted at the client, one worker killed half-way; followed to its end by another."""
    first = [TRTFARM, "campaign", "submit", file]
    with running(first, farm.client_env, farm.folder / "submit.log") as process:
        wait_until("builds are under way", lambda: covered(farm) >= 3, PATIENCE_SECONDS)
        process.signal(signal.SIGINT)
        assert process.wait(30) == 130, process.text()
        assert "54 jobs created" in process.text()
        assert "trtfarm campaign show everything --watch" in process.text()
    wait_until("half of it is built", lambda: covered(farm) >= CELLS // 3, PATIENCE_SECONDS)
    assert campaign(farm)["coverage"]["live"] > 2
    at_work = job_of(farm, victim)
    wait_until("it has just begun a build", lambda: job_of(farm, victim) not in {None, at_work}, 60)
    victim.kill()
    done = farm.cli("campaign", "submit", file, "--json", seconds=PATIENCE_SECONDS)
    assert done.code == 1, done  # TensorRT refuses some of it
    return dict(done.document)


def _check_the_first(farm: Farm, document: dict[str, Any]) -> None:
    assert document["name"] == "everything"
    assert document["coverage"] == {
        "wanted": CELLS, "covered": BUILT, "refused": REFUSED, "live": 0, "holes": 0, "complete": True,
    }  # fmt: skip
    assert Counter(job["state"] for job in document["jobs"]) == {"succeeded": BUILT, "failed": REFUSED}
    assert {job["disposition"] for job in document["jobs"]} <= {"joined", "reused", None}
    for job in jobs_of(document, refused=True):
        assert job["target"]["gpu"] == "cc-7.5"
        assert job["error"]["code"] == "UNSUPPORTED_ON_TARGET"
        assert "Turing" in job["error"]["message"]
    for job in jobs_of(document, state="succeeded"):
        assert farm.plan_file(job["plan"]["digest"]).stat().st_size == job["plan"]["size_bytes"]
    assert len({job["job_id"] for job in document["jobs"]}) == CELLS
    outcomes = Counter(
        attempt["outcome"] for job in every_job(farm) for attempt in farm.job(job["job_id"])["attempts"]
    )
    assert outcomes["lost"] >= 1, outcomes  # what the worker was at when it was killed
    assert outcomes["complete"] == BUILT


def _check_that_a_second_builds_nothing(farm: Farm, file: Path, before: dict[str, Any]) -> None:
    done = farm.cli("campaign", "submit", file, "--json", "--allow-refused")
    assert done.code == 0, done
    after = done.document
    assert after["campaign_id"] == before["campaign_id"]
    assert len(jobs_of(after, disposition="reused")) == BUILT
    assert len(jobs_of(after, disposition=None, refused=True)) == REFUSED
    assert [job["plan"] for job in after["jobs"]] == [job["plan"] for job in before["jobs"]]
    assert len(every_job(farm)) == CELLS


def _check_coverage(farm: Farm) -> None:
    view = farm.cli("coverage", "--json").document
    assert view["coverage"]["complete"]
    assert [(each["name"], each["coverage"]["covered"]) for each in view["campaigns"]] == [
        ("everything", BUILT)
    ]
    assert sorted(each["names"][0] for each in view["models"]) == sorted(models.LIGHT)
    assert all(each["coverage"]["wanted"] == len(CAPABILITIES) for each in view["models"])
    shown = farm.cli("campaign", "show", "everything")
    assert shown.code == 0
    assert "⊘ refused" in shown.out
    assert "[UNSUPPORTED_ON_TARGET] Cannot compile" in shown.out


def _check_fill(farm: Farm, document: dict[str, Any]) -> None:
    """A plan whose file is gone is built again, the refused cells only when asked for."""
    lost = jobs_of(document, state="succeeded")[0]
    farm.plan_file(lost["plan"]["digest"]).unlink()
    assert campaign(farm, check=True)["coverage"]["holes"] == 1
    done = farm.cli("campaign", "fill", "everything", "--json", "--allow-refused")
    assert done.code == 0, done
    (created,) = jobs_of(done.document, disposition="created")
    assert (created["name"], created["target"]) == (lost["name"], lost["target"])
    assert created["job_id"] != lost["job_id"]
    assert created["plan"]["digest"] == lost["plan"]["digest"]  # RTX builds the same bytes
    assert farm.plan_file(created["plan"]["digest"]).is_file()
    assert done.document["coverage"]["complete"]
    assert len(every_job(farm)) == CELLS + 1
    done = farm.cli("campaign", "fill", "everything", "--json", "--retry-failed")
    assert done.code == 1
    assert len(jobs_of(done.document, disposition="created", refused=True)) == REFUSED
    assert len(every_job(farm)) == CELLS + 1 + REFUSED
