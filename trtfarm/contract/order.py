"""Standing orders: a model that is to stay built and measured for the whole fleet."""

from __future__ import annotations

from collections import Counter
from enum import StrEnum
from typing import Annotated, Self

from pydantic import AfterValidator, AwareDatetime, Field, model_validator

from trtfarm.contract.campaign import CampaignConfig, CellPlan, CellState, Coverage, Name
from trtfarm.contract.digest import Digest
from trtfarm.contract.names import ModelReference
from trtfarm.contract.target import Target
from trtfarm.contract.text import plain_name
from trtfarm.contract.v1 import DEFAULT_TIMEOUT_SECONDS, MAX_TIMEOUT_SECONDS, ErrorView, Priority
from trtfarm.contract.value import Value
from trtfarm.errors import InvalidRequestError

SAME_PERCENT = 2.0
"""Two measurements that differ by less are the same."""

Filter = Annotated[str, Field(min_length=1, max_length=80), AfterValidator(plain_name)]


class OrderRequest(Value):
    """Ordered again under its name, it is the same order with another content.

    Attributes:
        model: a name follows its moves; a digest stays what it is.
        gpus, runtimes: products or capabilities, flavours or versions; without, all of the fleet.
        benchmark: measure every plan on each kind of GPU that it is for and a worker has.
        priority: by default behind what people ask for.

    Raises:
        InvalidRequestError: a config's name twice.
    """

    name: Name
    model: ModelReference
    gpus: Annotated[tuple[Filter, ...], Field(max_length=1000)] = ()
    runtimes: Annotated[tuple[Filter, ...], Field(max_length=100)] = ()
    configs: Annotated[tuple[CampaignConfig, ...], Field(min_length=1, max_length=100)] = (CampaignConfig(),)
    benchmark: bool = True
    priority: Priority = -10
    timeout_seconds: Annotated[float, Field(gt=0, le=MAX_TIMEOUT_SECONDS)] = DEFAULT_TIMEOUT_SECONDS

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        twice = [name for name, count in Counter(each.name for each in self.configs).items() if count > 1]
        if twice:
            raise InvalidRequestError(f"Two configs of the order are called {twice[0]!r}.")
        return self


class Measured(StrEnum):
    """Where the measurement of a plan stands.

    ``impossible``: no worker of the farm sits on a GPU that the plan is for. ``waiting``: for the plan.
    """

    DONE = "done"
    QUEUED = "queued"
    RUNNING = "running"
    FAILED = "failed"
    MISSING = "missing"
    WAITING = "waiting"
    IMPOSSIBLE = "impossible"
    OFF = "off"


class OrderBenchmark(Value):
    """A plan on one kind of GPU. Figures are there once ``state`` is done."""

    gpu: str
    state: Measured
    job_id: str | None = None
    throughput_qps: float | None = None
    gpu_compute_mean_ms: float | None = None


class OrderCell(Value):
    """One wanted build and its measurements."""

    target: Target
    config: str
    state: CellState
    measured: Measured
    build_key: str
    job_id: str | None
    plan: CellPlan | None
    benchmarks: tuple[OrderBenchmark, ...] = ()
    error: ErrorView | None = None


class OrderView(Value):
    """``digest``: what the model's name stands for now. ``problem``: why nothing can be done at present.

    ``cells`` are left out of lists.
    """

    order_id: str
    name: str
    model: ModelReference
    digest: Digest | None
    gpus: tuple[str, ...]
    runtimes: tuple[str, ...]
    configs: tuple[CampaignConfig, ...]
    benchmark: bool
    priority: int
    timeout_seconds: float
    coverage: Coverage
    measured: dict[Measured, int]
    cells: tuple[OrderCell, ...] | None
    problem: ErrorView | None
    created_at: AwareDatetime
    updated_at: AwareDatetime
    reconciled_at: AwareDatetime | None


class OrderList(Value):
    orders: tuple[OrderView, ...]


class DeletedOrderView(Value):
    """What became of its jobs: ``ended`` were queued; ``asked`` run, and end within seconds.

    ``shared``: jobs that go on, as others have submitted them, too.
    """

    name: str
    ended: int
    asked: int
    shared: int


class Verdict(StrEnum):
    """What a new TensorRT version means for one target, beside the plan of an older version.

    ``new``: there is no older plan. ``built``: both have plans, but not both are measured.
    """

    FASTER = "faster"
    SLOWER = "slower"
    SAME = "same"
    BUILT = "built"
    NEW = "new"
    FAILED = "failed"
    UNDER_WAY = "under way"
    MISSING = "missing"


class RolloutRow(Value):
    """``change_percent``: of the mean GPU compute time; less is faster. ``gpu``: the one measured on."""

    target: Target
    config: str
    gpu: str
    verdict: Verdict
    measured: Measured
    before: str | None = None
    before_plan: Digest | None = None
    before_mean_ms: float | None = None
    plan: Digest | None = None
    mean_ms: float | None = None
    change_percent: float | None = None
    error: ErrorView | None = None


class RolloutReport(Value):
    """Plans of each newest TensorRT version beside those of the version before. Nothing is switched by it.

    ``problem``: as of the order.
    """

    order: str
    digest: Digest
    counts: dict[Verdict, int]
    rows: tuple[RolloutRow, ...]
    problem: ErrorView | None = None


def verdict(before_ms: float | None, now_ms: float | None) -> tuple[Verdict, float | None]:
    """(verdict, change in percent) of two plans, by their mean GPU compute times."""
    if not before_ms or now_ms is None:
        return Verdict.BUILT, None
    change = 100 * (now_ms / before_ms - 1)
    if abs(change) < SAME_PERCENT:
        return Verdict.SAME, change
    return (Verdict.FASTER if change < 0 else Verdict.SLOWER), change
