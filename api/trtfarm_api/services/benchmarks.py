"""Submitting benchmarks of plans."""

from __future__ import annotations

import json

from trtfarm.catalogue import Capability, Catalogue
from trtfarm.contract.benchmark import BenchmarkOptions
from trtfarm.contract.benchmark_inputs import check_inputs
from trtfarm.contract.leases import BenchmarkWork
from trtfarm.contract.spec import BuildSpec
from trtfarm.contract.v1 import JobRequest, PlanView
from trtfarm.errors import BlobMissingError, InvalidRequestError, TargetUnavailableError
from trtfarm_api.farm import Farm
from trtfarm_db.repositories.artifacts import PlanRepository
from trtfarm_db.repositories.jobs import NewJob
from trtfarm_db.repositories.workers import WorkerRepository


def benchmark_job(farm: Farm, request: JobRequest) -> NewJob:
    """The job that measures a plan on a GPU that it fits.

    Raises:
        NotFoundError: no such plan.
        BlobMissingError: its bytes are lost, or an input was not uploaded.
        InvalidRequestError: the plan does not run on that GPU; an input does not fit it.
        TargetUnavailableError: no worker of this farm measures there.
    """
    assert request.plan is not None  # noqa: S101 - checked by the request itself
    with farm.database.transaction() as connection:
        plan = PlanRepository(connection).get(request.plan)
        served = WorkerRepository(connection).targets()
    if not farm.blobs.usable(plan.digest):
        raise BlobMissingError(f"The bytes of plan {plan.digest} are lost; build it again.")
    gpu = _gpu(farm.catalogue, plan, request.target.gpu if request.target else None)
    if (gpu, plan.target.runtime, plan.target.platform) not in served:
        raise TargetUnavailableError(
            f"No worker of this farm measures on {gpu} with {plan.target.runtime}.",
            hint="Start one on that GPU, with worker.runtime = tensorrt.",
        )
    spec = BuildSpec(model=plan.model, target=plan.target, config=plan.config, profiles=plan.profiles)
    options = request.benchmark or BenchmarkOptions()
    work = BenchmarkWork(
        plan=plan.digest,
        plan_size_bytes=plan.size_bytes,
        options=options,
        input_sizes=_input_sizes(farm, plan, options),
    )
    return NewJob(spec, request.priority, request.timeout_seconds, benchmark=work, gpu=gpu)


def _input_sizes(farm: Farm, plan: PlanView, options: BenchmarkOptions) -> dict[str, int]:
    sizes = {name: farm.blobs.require(digest).size_bytes for name, digest in options.inputs.items()}
    if sizes and plan.io is not None and farm.blobs.usable(plan.io):
        check_inputs(sizes, options, json.loads(farm.store.read(plan.io)))
    return sizes


def _gpu(catalogue: Catalogue, plan: PlanView, wanted: str | None) -> str:
    """The product to measure on: as wanted, else the one the plan was built for."""
    found = catalogue.resolve(wanted or plan.target.gpu)
    if isinstance(found, Capability):
        raise InvalidRequestError(
            f"{found.slug} is no product.", hint="A benchmark runs on one GPU: name it, as --gpu rtx-4090."
        )
    if found.compute_capability != plan.target.compute_capability:
        raise InvalidRequestError(
            f"The plan is for compute capability {plan.target.compute_capability}; "
            f"{found.slug} has {found.compute_capability}."
        )
    return found.slug
