"""A new TensorRT version beside the one before: what built, what failed, what is faster."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from trtfarm.contract.benchmark import BenchmarkView
from trtfarm.contract.campaign import CellState
from trtfarm.contract.order import OrderRequest, RolloutReport, RolloutRow, Verdict, verdict
from trtfarm.contract.spec import BuildSpec
from trtfarm.contract.target import Runtime
from trtfarm.contract.v1 import PlanView
from trtfarm.errors import TrtFarmError, from_code
from trtfarm_api.farm import Farm
from trtfarm_api.services.standing import Bench, Cell, Surveyor, bench
from trtfarm_api.services.targets import runtime_fits
from trtfarm_db.repositories.batches import BatchRepository
from trtfarm_db.repositories.orders import OrderRepository

_STATES = {
    CellState.QUEUED: Verdict.UNDER_WAY,
    CellState.RUNNING: Verdict.UNDER_WAY,
    CellState.FAILED: Verdict.FAILED,
    CellState.REFUSED: Verdict.FAILED,
}


def report(
    farm: Farm, surveyor: Surveyor, name: str, *, runtime: Runtime | None, against: Runtime | None
) -> RolloutReport:
    """``runtime``: the new version, by default each target's newest; ``against``: by default the one before.

    Raises:
        NotFoundError: no such order, or nothing has its model's name.
    """
    with farm.database.transaction() as connection:
        row = OrderRepository(connection).find(name)
    survey = surveyor.survey(row, check=False)
    if survey.digest is None:
        raise _raised(survey.problem.code, survey.problem.message) if survey.problem else AssertionError
    cells = _of_version(survey.cells, runtime)
    with farm.database.transaction() as connection:
        orders = OrderRepository(connection)
        plans = orders.plans_of(survey.digest, {cell.spec.target.gpu for cell in cells})
        before = [_before(cell, plans, against) for cell in cells]
        old = {
            job.key: job
            for cell, plan in zip(cells, before, strict=True)
            if plan is not None
            for each in cell.benches
            for job in (bench(_spec(plan), plan, each.gpu, row.request),)
        }
        known = BatchRepository(connection).known(
            [*old, *(each.new.key for cell in cells for each in cell.benches)]
        )
        jobs = {key: found.job_id for key, found in known.items()}
        by_job = orders.benchmarks(list(jobs.values()))
    figures = {key: by_job[job_id] for key, job_id in jobs.items() if job_id in by_job}
    rows = [
        each
        for cell, plan in zip(cells, before, strict=True)
        for each in _rows(cell, plan, row.request, figures)
    ]
    return RolloutReport(
        order=row.request.name,
        digest=survey.digest,
        counts=dict(Counter(each.verdict for each in rows)),
        rows=tuple(rows),
        problem=survey.problem,
    )


def _of_version(cells: Sequence[Cell], wanted: Runtime | None) -> list[Cell]:
    """Cells with the wanted runtime, or with the newest of their GPU and flavour."""
    if wanted is not None:
        return [cell for cell in cells if runtime_fits(wanted, _runtime(cell))]
    newest: dict[tuple[str, str, str], tuple[int, ...]] = {}
    for cell in cells:
        newest[_place(cell)] = max(newest.get(_place(cell), ()), _runtime(cell).version_numbers)
    return [cell for cell in cells if _runtime(cell).version_numbers == newest[_place(cell)]]


def _before(cell: Cell, plans: Sequence[PlanView], against: Runtime | None) -> PlanView | None:
    """The plan of the same build with an older runtime of the same flavour: of the newest such."""
    mine, spec = _runtime(cell), cell.spec
    found = [
        (Runtime.parse(plan.target.runtime).version_numbers, plan.job_id, plan)
        for plan in plans
        if (plan.target.gpu, plan.target.platform) == (spec.target.gpu, spec.target.platform)
        and (plan.config, plan.profiles) == (spec.config, spec.profiles)
        and Runtime.parse(plan.target.runtime).flavour == mine.flavour
        and Runtime.parse(plan.target.runtime).version_numbers < mine.version_numbers
        and (against is None or runtime_fits(against, Runtime.parse(plan.target.runtime)))
    ]
    return max(found, key=lambda each: each[:2])[2] if found else None


def _rows(
    cell: Cell, before: PlanView | None, request: OrderRequest, figures: Mapping[str, BenchmarkView]
) -> Iterator[RolloutRow]:
    """One for each kind of GPU it is measured on; one if there is none."""
    benches: tuple[Bench | None, ...] = cell.benches or (None,)
    for each in benches:
        now_ms = before_ms = None
        if each is not None:
            now_ms = _mean_ms(figures.get(each.new.key))
            if before is not None:
                before_ms = _mean_ms(figures.get(bench(_spec(before), before, each.gpu, request).key))
        kind, change = verdict(before_ms, now_ms)
        if cell.plan is None:
            kind = _STATES.get(cell.state, Verdict.MISSING)
        elif before is None:
            kind = Verdict.NEW
        yield RolloutRow(
            target=cell.spec.target,
            config=cell.config,
            gpu=each.gpu if each is not None else cell.spec.target.gpu,
            verdict=kind,
            measured=each.state if each is not None else cell.measured(request),
            before=before.target.runtime if before else None,
            before_plan=before.digest if before else None,
            before_mean_ms=before_ms,
            plan=cell.plan.digest if cell.plan else None,
            mean_ms=now_ms,
            change_percent=round(change, 2) if change is not None else None,
            error=cell.error,
        )


def _mean_ms(found: BenchmarkView | None) -> float | None:
    return found.measurement.gpu_compute.mean if found is not None else None


def _spec(plan: PlanView) -> BuildSpec:
    return BuildSpec(model=plan.model, target=plan.target, config=plan.config, profiles=plan.profiles)


def _runtime(cell: Cell) -> Runtime:
    return Runtime.parse(cell.spec.target.runtime)


def _place(cell: Cell) -> tuple[str, str, str]:
    target = cell.spec.target
    return target.gpu, target.platform, _runtime(cell).flavour


def _raised(code: str, message: str) -> TrtFarmError:
    return from_code(code, message, None, {})
