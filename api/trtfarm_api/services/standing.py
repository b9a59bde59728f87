"""What a standing order wants of the fleet as it is, and how each cell of it stands."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from trtfarm.catalogue import Capability, Catalogue
from trtfarm.contract.benchmark import BenchmarkOptions
from trtfarm.contract.campaign import CampaignConfig, CellState
from trtfarm.contract.digest import Digest
from trtfarm.contract.jobs import JobState
from trtfarm.contract.leases import BenchmarkWork
from trtfarm.contract.order import Measured, OrderRequest
from trtfarm.contract.spec import BuildSpec
from trtfarm.contract.target import Runtime, Target, parse_capability
from trtfarm.contract.v1 import ErrorView, PlanView
from trtfarm.errors import InvalidRequestError, KeyRevokedError, TrtFarmError, UnknownGpuError
from trtfarm_api.farm import Farm
from trtfarm_api.services.submissions import SubmissionService, check_spec
from trtfarm_api.services.targets import runtime_fits
from trtfarm_db.repositories.batches import BatchRepository, Known
from trtfarm_db.repositories.jobs import NewJob
from trtfarm_db.repositories.orders import OrderRepository, OrderRow
from trtfarm_db.repositories.workers import WorkerRepository

RETRY_SECONDS = 3600.0  # after which a build that failed by accident is tried again
Served = frozenset[tuple[str, str, str]]


@dataclass(frozen=True)
class Bench:
    """A plan on one kind of GPU; ``known``: the job that speaks for it. ``due``: to be submitted now."""

    gpu: str
    new: NewJob
    known: Known | None
    due: bool

    @property
    def state(self) -> Measured:
        if self.known is None:
            return Measured.MISSING
        states = {
            JobState.QUEUED: Measured.QUEUED,
            JobState.RUNNING: Measured.RUNNING,
            JobState.SUCCEEDED: Measured.DONE,
        }
        return states.get(self.known.state, Measured.FAILED)


@dataclass(frozen=True)
class Cell:
    """``plan``: if it is there. ``due``: to be submitted now."""

    spec: BuildSpec
    config: str
    state: CellState
    known: Known | None = None
    plan: PlanView | None = None
    error: ErrorView | None = None
    due: bool = False
    benches: tuple[Bench, ...] = ()

    def measured(self, request: OrderRequest) -> Measured:
        if not request.benchmark:
            return Measured.OFF
        if self.plan is None:
            return Measured.WAITING
        states = {bench.state for bench in self.benches}
        worst = (Measured.FAILED, Measured.MISSING, Measured.RUNNING, Measured.QUEUED, Measured.DONE)
        return next((state for state in worst if state in states), Measured.IMPOSSIBLE)


@dataclass(frozen=True)
class Survey:
    """``digest``: what the order's model is now; None with a ``problem``."""

    digest: Digest | None
    cells: tuple[Cell, ...]
    problem: ErrorView | None = None


class Surveyor:
    def __init__(self, farm: Farm, submissions: SubmissionService) -> None:
        self._farm = farm
        self._submissions = submissions

    def survey(self, row: OrderRow, *, check: bool = False) -> Survey:
        """``check``: look for every plan's bytes in the store."""
        survey = self._survey(row, check=check)
        return replace(survey, problem=_told(_revoked(row))) if row.revoked else survey

    def _survey(self, row: OrderRow, *, check: bool) -> Survey:
        try:
            digest = self._submissions.digest(row.request.model)
            model = self._submissions.model(digest)
        except TrtFarmError as error:
            return Survey(None, (), _told(error))
        with self._farm.database.transaction() as connection:
            fleet = WorkerRepository(connection).served_lately()
        targets, problem = _targets(row.request, fleet, self._farm.catalogue)
        cells = []
        for target, config in itertools.product(targets, row.request.configs):
            spec, name = _spec(digest, target, config), config.name
            try:
                check_spec(spec, model)
                cells.append(Cell(spec, name, CellState.MISSING, due=True))
            except InvalidRequestError as refusal:
                cells.append(Cell(spec, name, CellState.REFUSED, error=_told(refusal)))
        cells = self._with_builds(cells, check=check)
        if row.request.benchmark:
            cells = self._with_benches(cells, row.request, fleet)
        return Survey(digest, tuple(cells), problem)

    def _with_builds(self, cells: Sequence[Cell], *, check: bool) -> list[Cell]:
        with self._farm.database.transaction() as connection:
            known = BatchRepository(connection).known(cell.spec.build_key for cell in cells if cell.due)
            orders = OrderRepository(connection)
            long_ago = orders.failed_before([each.job_id for each in known.values()], RETRY_SECONDS)
            plans = orders.plans([each.job_id for each in known.values() if each.plan_is_there])
        if check:
            lost = self._farm.blobs.lost(plan.digest for plan in plans.values())
            plans = {job_id: plan for job_id, plan in plans.items() if plan.digest not in lost}
        return [_built(cell, known, long_ago, plans) if cell.due else cell for cell in cells]

    def _with_benches(self, cells: Sequence[Cell], request: OrderRequest, fleet: Served) -> list[Cell]:
        wanted = {
            cell.spec.build_key: [
                (gpu, bench(cell.spec, cell.plan, gpu, request))
                for gpu in measuring_gpus(cell.spec.target, fleet, self._farm.catalogue)
            ]
            for cell in cells
            if cell.plan is not None
        }
        with self._farm.database.transaction() as connection:
            known = BatchRepository(connection).known(new.key for each in wanted.values() for _, new in each)
            jobs = [each.job_id for each in known.values()]
            long_ago = OrderRepository(connection).failed_before(jobs, RETRY_SECONDS)
        return [
            replace(
                cell,
                benches=tuple(
                    Bench(gpu, new, known.get(new.key), _due(known.get(new.key), long_ago))
                    for gpu, new in wanted.get(cell.spec.build_key, ())
                ),
            )
            for cell in cells
        ]


def bench(spec: BuildSpec, plan: PlanView, gpu: str, request: OrderRequest) -> NewJob:
    """The job that measures a plan as orders do: with the default options, so that figures compare."""
    work = BenchmarkWork(plan=plan.digest, plan_size_bytes=plan.size_bytes, options=BenchmarkOptions())
    return NewJob(spec, request.priority, request.timeout_seconds, benchmark=work, gpu=gpu)


def measuring_gpus(target: Target, fleet: Served, catalogue: Catalogue) -> list[str]:
    """Products of the fleet that run plans of a target: itself, or those of its capability."""
    if parse_capability(target.gpu) is None:
        return [target.gpu]
    products = {
        gpu
        for gpu, runtime, platform in fleet
        if (runtime, platform) == (target.runtime, target.platform) and parse_capability(gpu) is None
    }
    return sorted(gpu for gpu in products if _capability(gpu, catalogue) == target.compute_capability)


def _revoked(row: OrderRow) -> KeyRevokedError:
    return KeyRevokedError(
        f"The key {row.principal} that declared the order was revoked; nothing is submitted for it.",
        hint="Declare it again with another key, which then answers for it: trtfarm order create.",
    )


def _targets(
    request: OrderRequest, fleet: Served, catalogue: Catalogue
) -> tuple[list[Target], ErrorView | None]:
    """Of the fleet, those that the order is for; a GPU that the catalogue lacks is a problem to be told."""
    runtimes = [Runtime.parse(each) for each in request.runtimes]
    targets, unknown = [], set[str]()
    for gpu, runtime, platform in sorted(fleet):
        if runtimes and not any(runtime_fits(each, Runtime.parse(runtime)) for each in runtimes):
            continue
        capability = _capability(gpu, catalogue)
        if capability is None:
            unknown.add(gpu)
        elif not request.gpus or any(_meant(each, gpu, capability, catalogue) for each in request.gpus):
            targets.append(Target(gpu=gpu, compute_capability=capability, runtime=runtime, platform=platform))
    if unknown:
        error = UnknownGpuError(
            f"The catalogue does not have {', '.join(sorted(unknown))}.", hint="Add it to targets.toml."
        )
        return targets, _told(error)
    if not targets:
        return [], ErrorView(
            code="TARGET_UNAVAILABLE", message="No worker that was here in the last day fits this order."
        )
    return targets, None


def _capability(gpu: str, catalogue: Catalogue) -> str | None:
    try:
        return catalogue.resolve(gpu).compute_capability
    except UnknownGpuError:
        return None


def _meant(wanted: str, gpu: str, capability: str, catalogue: Catalogue) -> bool:
    """Whether a filter of the order means this GPU of the fleet."""
    found = catalogue.resolve(wanted)
    if isinstance(found, Capability) or parse_capability(gpu) is not None:
        return found.compute_capability == capability
    return found.slug == gpu


def _spec(model: Digest, target: Target, config: CampaignConfig) -> BuildSpec:
    return BuildSpec(model=model, target=target, config=config.config, profiles=config.profiles)


def _built(
    cell: Cell, known: Mapping[str, Known], long_ago: Collection[str], plans: Mapping[str, PlanView]
) -> Cell:
    found = known.get(cell.spec.build_key)
    if found is None:
        return cell
    plan = plans.get(found.job_id)
    state = CellState(found.state.value)
    if found.refused:
        state = CellState.REFUSED
    elif found.state is JobState.SUCCEEDED and plan is None:
        state = CellState.LOST
    due = state is CellState.LOST or (state is CellState.FAILED and _due(found, long_ago))
    return replace(cell, state=state, known=found, plan=plan, error=found.error, due=due)


def _due(known: Known | None, long_ago: Collection[str]) -> bool:
    """What somebody has cancelled is left alone."""
    return known is None or known.job_id in long_ago


def _told(error: TrtFarmError) -> ErrorView:
    return ErrorView(code=error.code, message=error.message, hint=error.hint)
