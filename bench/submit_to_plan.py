"""submit_to_plan: from the submission to the plan in a file, against a fresh process that builds it directly.

upload_to_plan is the same with a model that the farm does not have yet.
"""

from __future__ import annotations

import itertools
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from statistics import median

from bench import direct_build
from bench.farm import Farm, Servers, farm
from bench.figures import BenchError, Figure, Goal, summary
from trtfarm.contract.builder_config import BuilderConfig
from trtfarm.contract.digest import Digest
from trtfarm.contract.jobs import JobState
from trtfarm.contract.v1 import JobRequest, JobView, TargetRequest
from trtfarm.inspection.manifest import manifest_of
from trtfarm.sdk.client import FarmClient

NAME = "submit_to_plan"
GOAL = Goal("ratio", "most", 1.0)
MODEL = "light_squeezenet.onnx"
GPU, CAPABILITY = "cc-8.9", "SM89"
WORKERS = 2
ROUNDS = 15
_WARM_ROUNDS = 10
_WORKSPACE = 256 << 20  # the least of them; a page more for each build, so that each has its own key
_PAGE = 4096


def measure(servers: Servers) -> list[Figure]:
    with farm(servers, workers=WORKERS) as running, FarmClient(running.url, running.key) as client:
        return _Trial(running, client).figures()


def model_file() -> Path:
    """One of the networks that the onnx package carries."""
    spec = find_spec("onnx")
    for folder in (spec and spec.submodule_search_locations) or ():
        found = Path(folder) / "backend" / "test" / "data" / "light" / MODEL
        if found.is_file():
            return found
    raise BenchError(f"the onnx package has no {MODEL}")


class _Trial:
    def __init__(self, running: Farm, client: FarmClient) -> None:
        self._client = client
        self._folder = running.folder
        self._original = model_file()
        self._workspaces = itertools.count(_WORKSPACE, _PAGE)
        self._models = self._fresh_models()

    def figures(self) -> list[Figure]:
        self._warm()
        uploaded, stored, direct = [], [], []
        for _ in range(ROUNDS):
            model, workspace = next(self._models), next(self._workspaces)
            seconds, plan = self._through_the_farm(model, workspace, upload=True)
            uploaded.append(seconds)
            seconds, peer = self._direct(model, workspace)
            direct.append(seconds)
            if plan != peer:
                raise BenchError("the farm's plan is not the one that a direct build gives")
            stored.append(self._through_the_farm(model, next(self._workspaces), upload=False)[0])
        return [_figure(NAME, stored, direct, GOAL), _figure("upload_to_plan", uploaded, direct, None)]

    def _warm(self) -> None:
        """Until every worker has built: its child has then loaded TensorRT and its model."""
        cold = {worker.worker_id for worker in self._client.fleet().workers}
        for _ in range(_WARM_ROUNDS):
            model = next(self._models)
            digest = self._client.upload_model(model, manifest_of(model))
            jobs = [self._submit(digest, next(self._workspaces)) for _ in range(2 * WORKERS)]
            for job_id in jobs:
                ended = self._client.job(self._follow(job_id).job_id)
                cold -= {attempt.worker_id for attempt in ended.attempts or ()}
            if not cold:
                return
        raise BenchError(f"workers {cold} take no work")

    def _through_the_farm(self, model: Path, workspace: int, *, upload: bool) -> tuple[float, Digest]:
        destination = self._folder / "pulled.plan"
        manifest = manifest_of(model)
        start = time.perf_counter()
        if upload:
            manifest = manifest_of(model)
            self._client.upload_model(model, manifest)
        job = self._follow(self._submit(manifest.digest, workspace))
        if job.plan is None:
            raise BenchError(f"the build {job.state}: {job.error}")
        self._client.pull(job.plan.digest, destination)
        seconds = time.perf_counter() - start
        destination.unlink()
        return seconds, job.plan.digest

    def _submit(self, model: Digest, workspace: int) -> str:
        config = BuilderConfig(memory_pool_limits={"workspace": workspace})
        return self._client.submit(
            JobRequest(model=model, target=TargetRequest(gpu=GPU), config=config)
        ).job.job_id

    def _follow(self, job_id: str) -> JobView:
        for job in self._client.follow(job_id):
            if job.state is not JobState.QUEUED:
                last = job
        return last

    def _direct(self, model: Path, workspace: int) -> tuple[float, Digest]:
        plan = self._folder / "direct.plan"
        command = [sys.executable, direct_build.__file__, model, plan, CAPABILITY, workspace]
        start = time.perf_counter()
        subprocess.run(list(map(str, command)), check=True, stdin=subprocess.DEVNULL)
        seconds = time.perf_counter() - start
        with plan.open("rb") as file:
            digest = Digest.of_file(file)
        plan.unlink()
        return seconds, digest

    def _fresh_models(self) -> Iterator[Path]:
        """Copies of the model that the farm does not have: another text in each, the same network."""
        import onnx

        model = onnx.load(self._original)
        for number in itertools.count():
            model.doc_string = f"copy {number}"
            path = self._folder / f"copy-{number}.onnx"
            onnx.save(model, path)
            yield path


def _figure(name: str, ours: list[float], direct: list[float], goal: Goal | None) -> Figure:
    return Figure(
        name=name,
        ours=median(ours) * 1e3,
        peer=median(direct) * 1e3,
        unit=" ms",
        peer_name="a fresh process: import, build, write",
        goal=goal,
        details={"ours": summary(ours), "direct": summary(direct)},
    )
