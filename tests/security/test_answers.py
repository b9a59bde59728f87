"""What a client gets is what it asked for, whoever answers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.acceptance.farms import Done
from tests.acceptance.processes import clean_environment
from tests.security.liar import (
    ADA,
    MODEL,
    NOW,
    OTHER,
    OTHER_MODEL,
    RUNTIME,
    TURING,
    WANTED,
    Liar,
    Reply,
    digest,
    job,
    lying,
    plan,
    refused,
    said,
    submission,
    withdrawn,
)
from trtfarm.cli.main import app
from trtfarm.contract.benchmark import BenchmarkOptions, BenchmarkView, Measurement, Metric, Usage
from trtfarm.contract.campaign import CampaignModel, CampaignRequest
from trtfarm.contract.device import Device
from trtfarm.contract.digest import Digest
from trtfarm.contract.jobs import JobState
from trtfarm.contract.machine import Machine, MachineRequest
from trtfarm.contract.models import ModelManifest
from trtfarm.contract.names import ModelName, NameView
from trtfarm.contract.order import OrderRequest
from trtfarm.contract.resolve import ResolveRequest, ResolveView
from trtfarm.contract.timing_cache import TimingCacheView
from trtfarm.contract.v1 import JobRequest, PlanView, TargetRequest
from trtfarm.contract.value import Value
from trtfarm.errors import AnswerMismatchError, BlobCorruptError, TrtFarmError
from trtfarm.sdk.aio import AsyncFarmClient
from trtfarm.sdk.client import FarmClient
from trtfarm.sdk.plan_cache import Answer, PlanCache

L4 = ("--gpu", "NVIDIA L4", "--runtime", RUNTIME, "--platform", "linux-x86_64")
HERE = MachineRequest(gpu="NVIDIA L4", runtime=RUNTIME)
MACHINE = Machine(gpu="l4", compute_capability="8.9", runtime=RUNTIME)
GOOD, BAD = plan(WANTED), plan(OTHER)
REQUEST = JobRequest(model=MODEL, target=TargetRequest(gpu="cc-8.9", runtime="tensorrt-rtx"))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "out" / "model.plan"
    path.parent.mkdir()
    path.write_bytes(b"what was there")
    return path


def cli(liar: Liar, folder: Path, *arguments: str | Path) -> Done:
    env = clean_environment() | {"TRTFARM_HOME": str(folder / "home"), "TRTFARM_URL": liar.url}
    done = CliRunner().invoke(app, [*map(str, arguments)], env=env)
    assert isinstance(done.exception, SystemExit | None), done.exception
    return Done(done.exit_code, done.stdout, done.stderr)


def mismatch(done: Done, asked: object, answered: object) -> None:
    assert (done.code, done.error["code"]) == (1, "ANSWER_MISMATCH"), done
    assert str(asked) in done.error["message"]
    assert str(answered) in done.error["message"]


def resolved(made: Any = GOOD, model: Digest = MODEL, machine: Machine = MACHINE, **more: Any) -> Reply:
    return said(
        ResolveView(
            model=model, machine=machine, plan=made, choice=None, why=(), needs=(), considered=(), **more
        )
    )


# --- plan pull ---


@pytest.mark.parametrize("exact", [(), ("--exact",)])
def test_a_plan_by_its_digest(liar: Liar, tmp_path: Path, file: Path, exact: tuple[str, ...]) -> None:
    """The answer, well-formed and with its own bytes, is about another plan."""
    liar.holds(BAD, OTHER)
    liar.routes[f"GET /v1/plans/{GOOD.digest}"] = said(BAD)
    done = cli(liar, tmp_path, "plan", "pull", GOOD.digest, *L4, "-o", file, "--json", *exact)
    mismatch(done, GOOD.digest, BAD.digest)
    assert file.read_bytes() == b"what was there"
    assert not list((tmp_path / "home").rglob("*.json")), "nothing is remembered either"
    assert f"GET /v1/plans/{BAD.digest}/content" not in liar.asked


def test_an_exact_digest_is_not_taken_for_a_models(liar: Liar, tmp_path: Path, file: Path) -> None:
    """Else a server that denies a plan could give any other one as a plan of that "model"."""
    pinned = digest(WANTED)
    lie = plan(OTHER, pinned)
    liar.holds(lie, OTHER)
    liar.routes["POST /v1/plans/resolve"] = resolved(lie, pinned)
    done = cli(liar, tmp_path, "plan", "pull", pinned, *L4, "-o", file, "--json", "--exact")
    assert (done.code, done.error["code"]) == (3, "NOT_FOUND")
    assert file.read_bytes() == b"what was there"
    told = cli(liar, tmp_path, "plan", "pull", pinned, *L4, "-o", file)
    assert (told.code, f"There is no plan {pinned}" in told.err) == (0, True), "at least it is said"


@pytest.mark.parametrize(
    ("answer", "asked", "answered"),
    [
        (resolved(plan(OTHER, OTHER_MODEL), OTHER_MODEL), MODEL, OTHER_MODEL),
        (resolved(plan(OTHER, OTHER_MODEL)), MODEL, OTHER_MODEL),
        (resolved(plan(OTHER, target=TURING)), "built for compute capability 7.5", "you have 8.9"),
        (
            resolved(
                plan(OTHER, target=TURING), machine=MACHINE.model_copy(update={"compute_capability": "7.5"})
            ),
            "8.9",
            "7.5",
        ),
        (resolved(machine=MACHINE.model_copy(update={"gpu": "rtx-4090"})), "l4", "rtx-4090"),
        (
            resolved(
                plan(OTHER, target=ADA.model_copy(update={"runtime": "tensorrt-rtx-1.0.0.1"})),
                machine=MACHINE.model_copy(update={"runtime": "tensorrt-rtx-1.0.0.1"}),
            ),
            RUNTIME.removeprefix("tensorrt-rtx-"),
            "1.0.0.1",
        ),
        (resolved(machine=MACHINE.model_copy(update={"platform": "linux-aarch64"})), "x86_64", "aarch64"),
        (resolved(plan(OTHER, config={"strip_plan": True})), "stripped", "refitted"),
        (
            resolved(None, submission=submission(job(None, model=OTHER_MODEL, state=JobState.QUEUED))),
            MODEL,
            OTHER_MODEL,
        ),
        (resolved(None, submission=submission(job(None, target=TURING))), "8.9", "7.5"),
    ],
)
def test_a_plan_of_a_model_for_this_machine(
    liar: Liar, tmp_path: Path, file: Path, answer: Reply, asked: object, answered: object
) -> None:
    """Whether it is of the model, and fits, is judged here once more."""
    liar.holds(BAD, OTHER)
    liar.routes["POST /v1/plans/resolve"] = answer
    for arguments in (("pull", MODEL, *L4, "-o", file), ("resolve", MODEL, *L4)):
        mismatch(cli(liar, tmp_path, "plan", *arguments, "--json"), asked, answered)
    assert file.read_bytes() == b"what was there"


def test_a_constraint_that_the_plan_does_not_keep(liar: Liar, sdk: FarmClient) -> None:
    liar.routes["POST /v1/plans/resolve"] = resolved()
    assert sdk.resolve(ResolveRequest(model=ModelName("a:b"), machine=HERE)).plan == GOOD
    with pytest.raises(AnswerMismatchError, match="refit"):
        sdk.resolve(ResolveRequest(model=MODEL, machine=HERE, config={"refit": True}))  # type: ignore[arg-type]


def test_an_answer_of_the_last_time_is_one_to_the_question(liar: Liar, tmp_path: Path, file: Path) -> None:
    """Without the farm, the machine's own cache answers; what somebody has put into it does not."""
    liar.holds(GOOD, WANTED)
    liar.holds(BAD, OTHER)
    assert cli(liar, tmp_path, "plan", "pull", BAD.digest, *L4, "-o", file).code == 0
    cache = PlanCache(tmp_path / "home" / "pulled")
    question = ResolveRequest(model=MODEL, machine=HERE)
    gone = f"{liar.url}/gone"
    unfit = plan(OTHER, target=TURING)
    of_another = plan(OTHER, OTHER_MODEL)
    for wanted, answer in ((GOOD.digest, BAD), (question, unfit), (question, of_another)):
        planted = Answer(plan=answer, machine=MACHINE, why=(), needs=(), at=NOW)
        cache.remember(gone, wanted, planted)
        with pytest.raises(AnswerMismatchError):
            cache.recall(gone, wanted)
    cache.remember(gone, question, Answer(plan=BAD, machine=MACHINE, why=(), needs=(), at=NOW))
    assert cache.recall(gone, question) is not None


# --- the SDK ---

NAME = ModelName("detector:prod")
CACHE = TimingCacheView(
    key="ab" * 32, revision=3, digest=digest(WANTED), size_bytes=len(WANTED), gpu="l4", runtime=RUNTIME,
    entries=None, job_id=None, worker_id=None, created_at=NOW,
)  # fmt: skip
NAMED = NameView(reference=NAME, model=MODEL, moved_at=NOW)
ORDER = OrderRequest(name="nightly", model=MODEL)


def _model(of: Digest) -> dict[str, Any]:
    return {
        "digest": of, "size_bytes": 1, "opsets": {}, "ir_version": 8, "node_count": 1, "inputs": [],
        "outputs": [], "external_data": [], "created_at": NOW.isoformat(),
    }  # fmt: skip


def _order(**more: Any) -> dict[str, Any]:
    coverage = {"wanted": 0, "covered": 0, "refused": 0, "live": 0, "holes": 0, "complete": True}
    return {
        "order_id": "1", "name": "nightly", "model": MODEL, "digest": MODEL, "gpus": [], "runtimes": [],
        "configs": [], "benchmark": True, "priority": 0, "timeout_seconds": 1, "coverage": coverage,
        "measured": {}, "cells": None, "problem": None, "created_at": NOW.isoformat(),
        "updated_at": NOW.isoformat(), "reconciled_at": None, **more,
    }  # fmt: skip


def _campaign(**more: Any) -> dict[str, Any]:
    coverage = {"wanted": 1, "covered": 1, "refused": 0, "live": 0, "holes": 0, "complete": True}
    cell = {
        "name": "resnet", "model": MODEL, "config": "default", "target": ADA.model_dump(), "gpus": ["cc-8.9"],
        "state": "succeeded", "disposition": None, "build_key": GOOD.build_key, "job_id": "job-1",
        "plan": {"digest": GOOD.digest, "size_bytes": GOOD.size_bytes}, "build_seconds": 1, "error": None,
    } | more.pop("cell", {})  # fmt: skip
    return {
        "campaign_id": "0199e0c2", "name": "nightly", "priority": 0, "timeout_seconds": 60,
        "models": [{"model": MODEL, "name": cell["name"]}], "targets": [{"gpu": "cc-8.9"}], "configs": [{}],
        "cells": [cell], "coverage": coverage, "created_at": NOW.isoformat(), "updated_at": NOW.isoformat(),
        "cancelled_at": None, **more,
    }  # fmt: skip


def _benchmark(of: PlanView) -> BenchmarkView:
    metric = Metric(min=1, max=1, mean=1, median=1, percentiles={}, coefficient_of_variation=0)
    measurement = Measurement(
        samples=1, throughput_qps=1, host_walltime_seconds=1, total_gpu_compute_seconds=1, latency=metric,
        enqueue=metric, h2d=metric, gpu_compute=metric, d2h=metric, device_memory_bytes=1,
        host_memory_bytes=1, usage=Usage(), shapes={},
    )  # fmt: skip
    device = Device(
        name="NVIDIA L4", gpu="l4", uuid="GPU-1", compute_capability="8.9", multiprocessors=58,
        memory_bytes=1, driver="580.1", cuda="13.0",
    )  # fmt: skip
    return BenchmarkView(
        job_id="job-1", plan=of.digest, model=of.model, gpu="l4", runtime=RUNTIME, options=BenchmarkOptions(),
        device=device, measurement=measurement, times=None, layer_profile=None, layer_information=None,
        created_at=NOW,
    )  # fmt: skip


CAMPAIGN = CampaignRequest(
    name="nightly",
    models=(CampaignModel(model=MODEL, name="resnet"),),
    targets=(TargetRequest(gpu="cc-8.9"),),
)


def _page(name: str, row: Value) -> Reply:
    return said({name: [row.model_dump(mode="json")], "next": None})


Ask = Callable[[Any], Any]
LIES: list[tuple[str, str, Reply, Ask]] = [
    ("plan", f"GET /v1/plans/{GOOD.digest}", said(BAD), lambda sdk: sdk.plan(GOOD.digest)),
    ("model", f"GET /v1/models/{MODEL}", said(_model(OTHER_MODEL)), lambda sdk: sdk.model(MODEL)),
    ("has model", f"GET /v1/models/{MODEL}", said(_model(OTHER_MODEL)), lambda sdk: sdk.has_model(MODEL)),
    (
        "name", f"GET /v1/names/{NAME}", said(NAMED.model_copy(update={"reference": ModelName("a:b")})),
        lambda sdk: sdk.name(NAME),
    ),
    (
        "tag", f"PUT /v1/names/{NAME}", said(NAMED.model_copy(update={"model": OTHER_MODEL})),
        lambda sdk: sdk.tag(MODEL, NAME),
    ),
    (
        "tag of another name", f"PUT /v1/names/{NAME}",
        said(NAMED.model_copy(update={"reference": ModelName("a:b")})), lambda sdk: sdk.tag(MODEL, NAME),
    ),
    (
        "benchmarks of a plan", "GET /v1/benchmarks", _page("benchmarks", _benchmark(BAD)),
        lambda sdk: sdk.benchmarks(plan=GOOD.digest),
    ),
    (
        "an order's name", "POST /v1/orders", said(_order(name="hourly")),
        lambda sdk: sdk.orders.declare(ORDER),
    ),
    (
        "a declared campaign's name", "POST /v1/campaigns", said(_campaign(name="hourly")),
        lambda sdk: sdk.campaigns.submit(CAMPAIGN),
    ),
    (
        "a cancelled campaign", "POST /v1/campaigns/nightly/cancel",
        said({"campaign": _campaign(name="hourly"), "ended": 0, "asked": 0, "shared": 0}),
        lambda sdk: sdk.campaigns.cancel("nightly"),
    ),
    ("job", "GET /v1/jobs/job-1", said(job(GOOD, job_id="job-2")), lambda sdk: sdk.job("job-1")),
    (
        "a job's plan", "GET /v1/jobs/job-1", said(job(plan(OTHER, OTHER_MODEL))),
        lambda sdk: sdk.job("job-1"),
    ),
    (
        "a job's plan for another target", "GET /v1/jobs/job-1", said(job(plan(OTHER, target=TURING))),
        lambda sdk: sdk.job("job-1"),
    ),
    (
        "a job that was seen", "GET /v1/jobs/job-1", said(job(plan(OTHER, OTHER_MODEL), model=OTHER_MODEL)),
        lambda sdk: sdk.job(job(None, state=JobState.QUEUED)),
    ),
    (
        "cancel", "POST /v1/jobs/job-1/cancel", said(withdrawn(job(None, job_id="job-2"))),
        lambda sdk: sdk.cancel("job-1"),
    ),
    (
        "prioritize", "POST /v1/jobs/job-1/prioritize", said(job(None, job_id="job-2")),
        lambda sdk: sdk.prioritize("job-1", 1),
    ),
    (
        "retry", "POST /v1/jobs/job-1/retry", said(submission(job(None, job_id="job-2", target=TURING))),
        lambda sdk: sdk.retry(job(None)),
    ),
    ("submit", "POST /v1/jobs", said(submission(job(GOOD, target=TURING))), lambda sdk: sdk.submit(REQUEST)),
    (
        "submit of a model", "POST /v1/jobs", said(submission(job(None, model=OTHER_MODEL))),
        lambda sdk: sdk.submit(REQUEST),
    ),
    (
        "submit with a config", "POST /v1/jobs", said(submission(job(GOOD))),
        lambda sdk: sdk.build(MODEL, "cc-8.9", config={"refit": True}),
    ),
    (
        "submit for a GPU", "POST /v1/jobs",
        said(submission(job(None, target=ADA.model_copy(update={"gpu": "rtx-4090"})))),
        lambda sdk: sdk.build(MODEL, "l4"),
    ),
    (
        "submit with a version", "POST /v1/jobs", said(submission(job(GOOD))),
        lambda sdk: sdk.build(MODEL, "cc-8.9", runtime="tensorrt-rtx-1.2"),
    ),
    ("benchmark", "POST /v1/jobs", said(submission(job(None))), lambda sdk: sdk.benchmark(GOOD)),
    (
        "plans of a model", "GET /v1/plans", _page("plans", plan(OTHER, OTHER_MODEL)),
        lambda sdk: sdk.plans(model=MODEL),
    ),
    (
        "jobs of a model", "GET /v1/jobs", _page("jobs", job(None, model=OTHER_MODEL)),
        lambda sdk: sdk.jobs(model=MODEL),
    ),
    (
        "names of a model", "GET /v1/names",
        _page("names", NAMED.model_copy(update={"model": OTHER_MODEL})),
        lambda sdk: sdk.names(model=MODEL),
    ),
    (
        "timing caches", f"GET /v1/timing-caches/{CACHE.key}",
        _page("timing_caches", CACHE.model_copy(update={"key": "cd" * 32})),
        lambda sdk: sdk.timing_caches(CACHE.key),
    ),
    (
        "rollback", f"POST /v1/timing-caches/{CACHE.key}/rollback",
        said(CACHE.model_copy(update={"key": "cd" * 32})),
        lambda sdk: sdk.roll_back_timing_cache(CACHE.key, 1),
    ),
    ("order", "GET /v1/orders/nightly", said(_order(name="hourly")), lambda sdk: sdk.orders.get("nightly")),
    (
        "an order's model", "POST /v1/orders", said(_order(model=OTHER_MODEL)),
        lambda sdk: sdk.orders.declare(ORDER),
    ),
    (
        "campaign", "GET /v1/campaigns/nightly", said(_campaign(name="hourly")),
        lambda sdk: sdk.campaigns.get("nightly"),
    ),
    (
        "a campaign's cell", "GET /v1/campaigns/nightly", said(_campaign(cell={"model": OTHER_MODEL})),
        lambda sdk: sdk.campaigns.get("nightly"),
    ),
    (
        "a declared campaign", "POST /v1/campaigns", said(_campaign(cell={"model": OTHER_MODEL})),
        lambda sdk: sdk.campaigns.submit(CAMPAIGN),
    ),
    (
        "a declared campaign's row", "POST /v1/campaigns", said(_campaign(cell={"name": "another"})),
        lambda sdk: sdk.campaigns.submit(CAMPAIGN),
    ),
]  # fmt: skip


@pytest.mark.parametrize(("route", "lie", "ask"), [each[1:] for each in LIES], ids=[each[0] for each in LIES])
def test_the_sdk(liar: Liar, route: str, lie: Reply, ask: Ask) -> None:
    """In both clients: their calls are the same flows."""
    liar.routes[route] = lie

    async def in_a_loop() -> None:
        async with AsyncFarmClient(liar.url) as sdk:
            await ask(sdk)

    with FarmClient(liar.url) as sdk, pytest.raises(AnswerMismatchError) as caught:
        ask(sdk)
    assert {"asked", "answered"} <= caught.value.details.keys()
    with pytest.raises(AnswerMismatchError):
        asyncio.run(in_a_loop())


def test_the_right_answers_are_taken(liar: Liar, sdk: FarmClient) -> None:
    """None of the above is refused for its form."""
    liar.holds(GOOD, WANTED)
    liar.routes["GET /v1/jobs/job-1"] = said(job(GOOD))
    liar.routes["POST /v1/jobs"] = said(submission(job(GOOD)))
    liar.routes["GET /v1/campaigns/nightly"] = liar.routes["POST /v1/campaigns"] = said(_campaign())
    liar.routes["POST /v1/orders"] = said(_order())
    assert sdk.plan(GOOD.digest) == GOOD
    assert sdk.job(job(None, state=JobState.QUEUED)).plan == GOOD
    assert sdk.submit(REQUEST).job.plan == GOOD
    assert sdk.build(MODEL, "rtx-4090", runtime="tensorrt-rtx-1.7").job.plan == GOOD
    assert sdk.campaigns.get("nightly") == sdk.campaigns.submit(CAMPAIGN)
    assert sdk.orders.declare(ORDER).model == MODEL


def test_artifacts_and_timing_caches_are_the_bytes_that_were_asked_for(liar: Liar, sdk: FarmClient) -> None:
    liar.routes[f"GET /v1/artifacts/{digest(WANTED)}"] = Reply(OTHER)
    with pytest.raises(BlobCorruptError, match=digest(OTHER)):
        sdk.artifact(digest(WANTED))
    liar.routes[f"GET /v1/timing-caches/{CACHE.key}"] = said(
        {"timing_caches": [CACHE.model_dump(mode="json")]}
    )
    content = f"GET /v1/timing-caches/{CACHE.key}/content"
    # The answer names its own digest: it proves nothing.
    liar.routes[content] = Reply(OTHER, headers={"ETag": f'"{digest(OTHER).hex}"'})
    with pytest.raises(BlobCorruptError, match=CACHE.digest):
        sdk.timing_cache(CACHE.key)
    liar.routes[content] = Reply(WANTED)
    assert sdk.timing_cache(CACHE.key, 3) == WANTED


def test_a_job_that_changes_into_another_while_it_is_followed(liar: Liar, sdk: FarmClient) -> None:
    waiting = job(None, state=JobState.QUEUED)
    events = [
        waiting,
        job(plan(OTHER, OTHER_MODEL), model=OTHER_MODEL),  # of another model
    ]
    body = "".join(
        f"id: {number}\ndata: {each.model_dump_json()}\n\n" for number, each in enumerate(events, 1)
    )
    stream = Reply(body.encode(), headers={"Content-Type": "text/event-stream"})
    liar.routes["GET /v1/jobs/job-1/events"] = liar.routes["GET /v1/jobs/job-2/events"] = stream
    with pytest.raises(AnswerMismatchError, match="model"):
        sdk.wait("job-1")
    with pytest.raises(AnswerMismatchError, match="job-2"):
        sdk.wait("job-2")
    liar.routes["GET /v1/jobs"] = _page("jobs", events[1])
    with pytest.raises(AnswerMismatchError, match="model"):
        list(sdk.as_completed([waiting]))
    rows = [each.model_dump(mode="json") for each in (job(None), job(None, job_id="job-2"))]
    liar.routes["GET /v1/jobs"] = said({"jobs": rows, "next": None})
    with pytest.raises(AnswerMismatchError, match="job-2"):
        list(sdk.as_completed(["job-1"]))


def test_figures_are_of_the_plan_that_was_measured(liar: Liar, tmp_path: Path) -> None:
    liar.routes[f"GET /v1/plans/{GOOD.digest}"] = said(GOOD)
    for of, code in ((BAD, 1), (GOOD, 0)):
        done = job(None, kind="benchmark", benchmark=_benchmark(of))
        queued = job(None, kind="benchmark", state=JobState.QUEUED)
        body = f"id: 1\ndata: {done.model_dump_json()}\n\n".encode()
        liar.routes["POST /v1/jobs"] = said(submission(queued))
        liar.routes["GET /v1/jobs/job-1/events"] = Reply(body, headers={"Content-Type": "text/event-stream"})
        told = cli(liar, tmp_path, "benchmark", GOOD.digest, "--json")
        if code:
            mismatch(told, GOOD.digest, BAD.digest)
        else:
            assert told.code == 0, told


def test_a_timing_cache_that_is_imported(liar: Liar, sdk: FarmClient, tmp_path: Path) -> None:
    path = tmp_path / "timing.cache"
    path.write_bytes(WANTED)
    size, of = len(WANTED), digest(WANTED)
    view = {"upload_id": "1", "digest": of, "size_bytes": size, "offset": size, "complete": True}
    liar.routes["POST /v1/uploads"] = said(view)
    liar.routes["POST /v1/timing-caches"] = said(CACHE.model_copy(update={"digest": digest(OTHER)}))
    with pytest.raises(AnswerMismatchError, match="timing cache"):
        sdk.import_timing_cache(path, "l4")


def test_an_upload_is_of_the_file_that_was_announced(liar: Liar, sdk: FarmClient, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"some model")
    manifest = ModelManifest(onnx=digest(b"some model"), onnx_size_bytes=10)
    liar.routes[f"GET /v1/models/{manifest.digest}"] = refused(404, "MODEL_NOT_FOUND")
    view = {"upload_id": "1", "digest": manifest.onnx, "size_bytes": 10, "offset": 0, "complete": False}
    for lie in ({"digest": digest(OTHER)}, {"size_bytes": 11}, {"offset": -1}, {"offset": 11}):
        liar.routes["POST /v1/uploads"] = said({**view, **lie})
        with pytest.raises(AnswerMismatchError):
            sdk.upload_model(path, manifest)
        assert "PATCH /v1/uploads/1" not in liar.asked, "nothing was sent"


# --- what is written ---


def test_build_with_an_output(liar: Liar, tmp_path: Path, file: Path) -> None:
    liar.routes[f"GET /v1/models/{MODEL}"] = said(_model(MODEL))
    liar.holds(BAD, OTHER)
    made = plan(OTHER, OTHER_MODEL)
    for lie in (job(made, model=OTHER_MODEL), job(made)):
        liar.routes["POST /v1/jobs"] = said(submission(lie))
        done = cli(liar, tmp_path, "build", MODEL, "--gpu", "cc-8.9", "-o", file, "--json")
        mismatch(done, MODEL, OTHER_MODEL)
    assert file.read_bytes() == b"what was there"


IO = json.dumps(
    {"inputs": [{"name": "x", "dtype": "float32", "shape": [1]}], "outputs": [], "profiles": []}
).encode()


@pytest.mark.parametrize("name", ["../../up", "/etc/up", "..", "a/../../up", ".", "~"])
def test_a_name_of_a_server_stays_in_the_folder(liar: Liar, tmp_path: Path, name: str) -> None:
    """A name of a campaign's row, which becomes a folder."""
    made = plan(WANTED, io=digest(IO))
    liar.holds(made, WANTED)
    liar.routes[f"GET /v1/artifacts/{digest(IO)}"] = Reply(IO)
    liar.routes["GET /v1/campaigns/nightly"] = said(_campaign(cell={"name": name}))
    target = tmp_path / "deep" / "repository"
    done = cli(liar, tmp_path, "campaign", "export", "nightly", target, "--backend", "mine", "--json")
    assert done.code == 0, done
    (exported,) = done.document["plans"]
    assert Path(exported["path"]).resolve().is_relative_to(target.resolve())
    outside = [path for path in tmp_path.rglob("*") if path.is_file() and target not in path.parents]
    assert [path for path in outside if "home" not in path.parts] == []


def test_an_export_has_the_plans_of_its_cells(liar: Liar, tmp_path: Path) -> None:
    liar.routes["GET /v1/campaigns/nightly"] = said(_campaign())
    target = tmp_path / "repository"
    for lie in (
        plan(WANTED, OTHER_MODEL),
        plan(WANTED, target=TURING),
        plan(WANTED, build_key="0" * 64),
        BAD,
    ):
        liar.routes[f"GET /v1/plans/{GOOD.digest}"] = said(lie)
        done = cli(liar, tmp_path, "campaign", "export", "nightly", target, "--backend", "mine", "--json")
        assert (done.code, done.error["code"]) == (1, "ANSWER_MISMATCH"), done
    assert not target.exists()


# --- errors ---


@pytest.mark.parametrize(
    "details",
    [{"message": "x"}, {"hint": 1}, {"self": 1}, {"code": "x", "": None}, {"kind": [], "otherwise": 2}],
)
def test_an_errors_details_may_have_any_name(liar: Liar, sdk: FarmClient, details: dict[str, Any]) -> None:
    """They were arguments of its constructor: a job's error could be a traceback."""
    error = {"code": "NO_TACTIC", "message": "told", "details": details}
    failed = job(None, state=JobState.FAILED, error=error)
    with pytest.raises(TrtFarmError, match="told") as caught:
        failed.raise_for_state()
    assert (caught.value.code, caught.value.details) == ("NO_TACTIC", details)
    liar.routes["GET /v1/fleet"] = refused(400, "UNKNOWN_GPU", "told", details=details)
    with pytest.raises(TrtFarmError, match="told") as caught:
        sdk.fleet()
    assert (caught.value.code, caught.value.details) == ("UNKNOWN_GPU", details)


@pytest.mark.parametrize("problem", [[], "x", {"code": 1, "detail": "x"}, {"code": "X", "detail": ["x"]}])
def test_an_error_in_another_form_is_no_farms(liar: Liar, sdk: FarmClient, problem: Any) -> None:
    liar.routes["GET /v1/fleet"] = Reply(json.dumps(problem).encode(), 400)
    with pytest.raises(TrtFarmError) as caught:
        sdk.fleet()
    assert caught.value.code == "FARM_UNREACHABLE"


def test_a_key_does_not_follow_to_another_host(liar: Liar) -> None:
    with lying() as elsewhere:
        for status in (301, 302, 303, 307, 308):
            moved = Reply(status=status, headers={"Location": f"{elsewhere.url}/v1/fleet"})
            liar.routes["GET /v1/fleet"] = liar.routes["GET /v1/jobs/1/events"] = moved
            with FarmClient(liar.url, "a-secret-key") as sdk:
                for call in (sdk.fleet, lambda sdk=sdk: sdk.wait("1")):
                    with pytest.raises(TrtFarmError) as caught:
                        call()
                    assert caught.value.code == "FARM_UNREACHABLE"
        assert elsewhere.asked == []
    assert all(each["Authorization"] == "Bearer a-secret-key" for each in liar.seen_headers)
