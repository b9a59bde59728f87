"""``trtfarm demo``: the whole loop on this machine, with real TensorRT plans."""

from __future__ import annotations

import importlib.util
import shutil
import time
from pathlib import Path
from typing import Annotated

import typer

from trtfarm.cli.follow import Follower
from trtfarm.cli.model_source import upload
from trtfarm.cli.output import print_json, print_table, size, stderr
from trtfarm.cli.run import exits
from trtfarm.compose.embedded import Home
from trtfarm.compose.farm import Farm
from trtfarm.contract.jobs import Disposition, JobState
from trtfarm.contract.v1 import JobRequest, JobView, TargetRequest
from trtfarm.errors import BuildError

_MODELS = ("squeezenet", "resnet50")
_RUNTIME = "tensorrt-rtx"


def demo(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")] = False,
) -> None:
    """Builds two real networks for every GPU generation, pulls a plan, and builds them again.

    TensorRT-RTX builds ahead of time on the CPU: no GPU is needed. Everything stays in a folder of its own.
    """
    with exits(as_json=as_json):
        home = Home.default().path / "demo"
        shutil.rmtree(home, ignore_errors=True)
        started = time.monotonic()
        with Farm(home=home) as farm:
            rows, first = _build(farm, quiet=as_json)
            if not as_json:
                _print(rows)
            pulled = _pull(farm, first, home)
            if not as_json:
                stderr.print(
                    f"\nPulled {pulled}: {size(pulled.stat().st_size)}, digest verified.\n", markup=False
                )
            again, _ = _build(farm, quiet=True)
        _check(rows, again)
        seconds = time.monotonic() - started
        if as_json:
            documents = [_document(*row) for row in rows]
            reused = [_document(*row) for row in again]
            print_json({"first": documents, "again": reused, "pulled": str(pulled), "seconds": seconds})
            return
        stderr.print("Once more, the same builds:\n")
        _print(again)
        stderr.print(
            f"\nThe whole loop took {seconds:.0f} s. Build your own: trtfarm build model.onnx --gpu cc-8.9"
        )


Row = tuple[str, Disposition, JobView]


def _build(farm: Farm, *, quiet: bool) -> tuple[list[Row], JobView]:
    """Every model for every capability the worker builds for; also the first job that gave a plan."""
    targets = farm.fleet().workers[0].gpus
    submissions = []
    for name in _MODELS:
        digest = upload(farm, _model(name), quiet=True)
        for gpu in targets:
            target = TargetRequest(gpu=gpu, runtime=_RUNTIME)
            submissions.append((name, farm.submit(JobRequest(model=digest, target=target))))
    if not quiet:
        stderr.print(f"Building {len(_MODELS)} models for {len(targets)} GPU generations.", markup=False)
    jobs = Follower(farm, quiet=quiet).follow([each.job for _, each in submissions])
    rows = [(name, each.disposition, jobs[each.job.job_id]) for name, each in submissions]
    built = next((job for _, _, job in rows if job.plan is not None), None)
    if built is None:
        raise BuildError("Nothing could be built; see trtfarm doctor.")
    return rows, built


def _model(name: str) -> Path:
    """One of the real topologies that the onnx package ships for its own tests."""
    spec = importlib.util.find_spec("onnx")
    assert spec is not None  # noqa: S101 - a dependency
    assert spec.origin is not None  # noqa: S101
    return Path(spec.origin).parent / "backend/test/data/light" / f"light_{name}.onnx"


def _pull(farm: Farm, job: JobView, folder: Path) -> Path:
    assert job.plan is not None  # noqa: S101 - chosen for its plan
    path = folder / f"{_MODELS[0]}.{job.target.gpu}.plan"
    farm.pull(job.plan.digest, path)
    return path


def _check(rows: list[Row], again: list[Row]) -> None:
    for (_, _, before), (name, disposition, after) in zip(rows, again, strict=True):
        if before.state is JobState.SUCCEEDED and disposition is not Disposition.REUSED:
            raise BuildError(f"{name} for {after.target.gpu} was built twice; this is a defect of trtfarm.")


def _print(rows: list[Row]) -> None:
    cells = []
    for name, disposition, job in rows:
        seconds = f"{job.build_seconds:.2f}" if job.build_seconds is not None else ""
        length = size(job.plan.size_bytes) if job.plan else ""
        result = (
            job.plan.digest if job.plan else f"[{job.error.code}] {job.error.message}" if job.error else ""
        )
        cells.append((name, job.target.gpu, disposition, seconds, length, result))
    print_table(("model", "target", "", "seconds", "size", "plan"), cells, empty="")


def _document(name: str, disposition: Disposition, job: JobView) -> dict[str, object]:
    return {"model": name, "disposition": disposition, "job": job.model_dump(mode="json", exclude_none=True)}
