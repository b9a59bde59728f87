"""Standing orders: declared, shown, kept."""

from __future__ import annotations

import contextlib
import logging
from collections import Counter
from collections.abc import Iterator, Sequence

from trtfarm.contract.benchmark import BenchmarkView
from trtfarm.contract.campaign import CellPlan, CellState, Coverage
from trtfarm.contract.jobs import Disposition
from trtfarm.contract.order import (
    DeletedOrderView,
    OrderBenchmark,
    OrderCell,
    OrderList,
    OrderRequest,
    OrderView,
)
from trtfarm.contract.target import Runtime
from trtfarm.errors import TrtFarmError
from trtfarm_api.auth import Principal
from trtfarm_api.farm import Farm
from trtfarm_api.services.ownership import require_own
from trtfarm_api.services.standing import Bench, Cell, Survey, Surveyor
from trtfarm_api.services.submissions import SubmissionService
from trtfarm_db.repositories.batches import BatchCaller, BatchRepository
from trtfarm_db.repositories.cancelling import CancelRepository
from trtfarm_db.repositories.jobs import NewJob
from trtfarm_db.repositories.orders import OrderRepository, OrderRow
from trtfarm_db.repositories.participants import ParticipantRepository

_log = logging.getLogger(__name__)


class OrderService:
    def __init__(self, farm: Farm, submissions: SubmissionService) -> None:
        self._farm = farm
        self.surveyor = Surveyor(farm, submissions)

    def declare(self, request: OrderRequest, principal: str) -> tuple[OrderView, bool]:
        """The order, and whether it is new; what is missing is submitted at once.

        Raises:
            UnknownGpuError, UnknownRuntimeError: nobody knows of such a thing.
        """
        for gpu in request.gpus:
            self._farm.catalogue.resolve(gpu)
        for runtime in request.runtimes:
            Runtime.parse(runtime)
        with self._farm.database.transaction() as connection:
            new = OrderRepository(connection).declare(request, principal)
        self._reconcile(self._find(request.name), check=True)
        return self.get(request.name), new

    def get(self, name: str, *, check: bool = False) -> OrderView:
        """``check``: look for every plan's bytes in the store."""
        row = self._find(name)
        survey = self.surveyor.survey(row, check=check)
        return self._view(row, survey, cells=True)

    def all(self) -> OrderList:
        """Without their cells."""
        with self._farm.database.transaction() as connection:
            rows = OrderRepository(connection).all()
        return OrderList(
            orders=tuple(self._view(row, self.surveyor.survey(row), cells=False) for row in rows)
        )

    def remove(self, name: str, principal: Principal) -> DeletedOrderView:
        """Ends the order's jobs, but for those that others have submitted as well; its plans stay.

        Raises:
            NotFoundError.
            ScopeMissingError: the order is not theirs.
        """
        with self._farm.database.transaction() as connection:
            orders = OrderRepository(connection)
            row = orders.find(name)
            require_own(principal, row.principal, f"order {row.request.name}")
            orders.remove(row.order_id)
            cancelled = CancelRepository(connection).withdraw_all(row.order_id)
        return DeletedOrderView(
            name=row.request.name,
            ended=len(cancelled.ended),
            asked=len(cancelled.asked),
            shared=len(cancelled.shared),
        )

    def reconcile(self, *, check: bool) -> int:
        """Submits what is missing of every order, if nobody else is doing so; how many jobs that made.

        ``check``: look for every plan's bytes in the store.
        """
        made = 0
        with self._farm.database.transaction() as connection:
            rows = OrderRepository(connection).all()
        with self._leading() as leads:
            for row in rows if leads else ():
                try:
                    made += self._reconcile(row, check=check)
                except TrtFarmError as error:  # of one order; the others go on
                    _log.warning("order %s: %s", row.request.name, error)
        return made

    def _reconcile(self, row: OrderRow, *, check: bool) -> int:
        survey = self.surveyor.survey(row, check=check)
        jobs = [] if row.revoked else self._wanted(row, survey)
        lost = {cell.known.job_id for cell in survey.cells if cell.state is CellState.LOST and cell.known}
        with self._farm.database.transaction() as connection:
            did = BatchRepository(connection).submit(
                jobs, BatchCaller(row.principal, row.order_id), distrusted=lost
            )
            if jobs or row.reconciled_at is None or survey.problem != row.problem:
                OrderRepository(connection).reconciled(row.order_id, survey.problem)
        if survey.problem != row.problem and survey.problem is not None:
            _log.warning("order %s: %s", row.request.name, survey.problem.message)
        created = [job for job in jobs if did.get(job.key) is Disposition.CREATED]
        if created:
            self._farm.metrics.submissions.labels(Disposition.CREATED).inc(len(created))
            _log.info("order %s: %d jobs submitted", row.request.name, len(created))
        for queue in dict.fromkeys(job.queue for job in created):
            self._farm.bell.ring(queue)
        return len(created)

    def _wanted(self, row: OrderRow, survey: Survey) -> list[NewJob]:
        """What is missing, and what others have submitted: the order waits for that as well as they."""
        request = row.request
        builds = [
            (cell.due, cell.known, NewJob(cell.spec, request.priority, request.timeout_seconds))
            for cell in survey.cells
        ]
        measures = [(each.due, each.known, each.new) for cell in survey.cells for each in cell.benches]
        wanted = [*builds, *measures]
        live = [known.job_id for _, known, _ in wanted if known is not None and known.live]
        with self._farm.database.transaction() as connection:
            mine = ParticipantRepository(connection).submitted_for(row.order_id, live) if live else set()
        others = set(live) - mine
        return [new for due, known, new in wanted if due or (known is not None and known.job_id in others)]

    @contextlib.contextmanager
    def _leading(self) -> Iterator[bool]:
        """Whether nobody else reconciles, until the block ends."""
        if not self._farm.database.shared:  # one process; and a transaction would keep its other ones waiting
            yield True
            return
        with self._farm.database.transaction() as connection:
            yield OrderRepository(connection).alone()

    def _find(self, name: str) -> OrderRow:
        with self._farm.database.transaction() as connection:
            return OrderRepository(connection).find(name)

    def _view(self, row: OrderRow, survey: Survey, *, cells: bool) -> OrderView:
        request = row.request
        return OrderView(
            order_id=row.order_id,
            name=request.name,
            model=request.model,
            digest=survey.digest,
            gpus=request.gpus,
            runtimes=request.runtimes,
            configs=request.configs,
            benchmark=request.benchmark,
            priority=request.priority,
            timeout_seconds=request.timeout_seconds,
            coverage=Coverage.of(cell.state for cell in survey.cells),
            measured=dict(Counter(cell.measured(request) for cell in survey.cells)),
            cells=self._cells(request, survey.cells) if cells else None,
            problem=survey.problem,
            created_at=row.created_at,
            updated_at=row.updated_at,
            reconciled_at=row.reconciled_at,
        )

    def _cells(self, request: OrderRequest, cells: Sequence[Cell]) -> tuple[OrderCell, ...]:
        jobs = [bench.known.job_id for cell in cells for bench in cell.benches if bench.known]
        with self._farm.database.transaction() as connection:
            figures = OrderRepository(connection).benchmarks(jobs)
        return tuple(
            OrderCell(
                target=cell.spec.target,
                config=cell.config,
                state=cell.state,
                measured=cell.measured(request),
                build_key=cell.spec.build_key,
                job_id=cell.known.job_id if cell.known else None,
                plan=_plan(cell),
                benchmarks=tuple(_benchmark(bench, figures) for bench in cell.benches),
                error=cell.error,
            )
            for cell in cells
        )


def _plan(cell: Cell) -> CellPlan | None:
    return CellPlan(digest=cell.plan.digest, size_bytes=cell.plan.size_bytes) if cell.plan else None


def _benchmark(bench: Bench, figures: dict[str, BenchmarkView]) -> OrderBenchmark:
    found = figures.get(bench.known.job_id) if bench.known else None
    return OrderBenchmark(
        gpu=bench.gpu,
        state=bench.state,
        job_id=bench.known.job_id if bench.known else None,
        throughput_qps=found.measurement.throughput_qps if found else None,
        gpu_compute_mean_ms=found.measurement.gpu_compute.mean if found else None,
    )
