"""Plans of a model that may fit a machine, and those near to it; bounded work, however many there are."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, lru_cache
from typing import Any, NamedTuple

from sqlalchemy import (
    JSON,
    ColumnExpressionArgument,
    CompoundSelect,
    Connection,
    Row,
    Select,
    bindparam,
    literal,
    select,
    type_coerce,
    union_all,
)

from trtfarm.contract.digest import Digest
from trtfarm.contract.fit import PlanFacts
from trtfarm.contract.machine import Machine
from trtfarm.contract.resolve import Speed
from trtfarm.contract.target import DEFAULT_PLATFORM, Target, capability_target
from trtfarm.contract.v1 import PlanView
from trtfarm.contract.value import canonical_json
from trtfarm_db.models import Benchmark, Plan
from trtfarm_db.repositories import views

MOST_ALIKE = 200  # builds of one model for one GPU and runtime, or portable ones: by their configs
_MOST_NEAR = 30
_MOST_MEASURED = 200
_VERSION_COMPATIBLE = type_coerce(Plan.spec, JSON)["config", "version_compatible"].as_boolean()
_COLUMNS = (Plan.job_id, Plan.digest, Plan.spec, Plan.created_at)


class Found(NamedTuple):
    """``near``: plans that do not fit, but tell what there is."""

    may_fit: list[PlanFacts]
    near: list[PlanFacts]


class FittingRepository:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def plans(self, model: Digest, machine: Machine) -> Found:
        """In one question, for a machine waits for the answer."""
        capability = capability_target(machine.compute_capability)
        asked = {"model": str(model), "runtime": machine.runtime, "capability": capability}
        rows = self._connection.execute(_plans(), asked | {"gpu": machine.gpu or capability}).all()
        may_fit = {row.job_id for row in rows if row.may_fit}
        facts = _facts(rows)
        return Found(
            may_fit=[each for each in facts if each.job_id in may_fit],
            near=[each for each in facts if each.job_id not in may_fit],
        )

    def portable(self, model: Digest) -> list[PlanFacts]:
        """Those that may fit other GPUs or versions than their own, whichever these are."""
        query = select(*_COLUMNS).where(Plan.model_digest == str(model), Plan.portable)
        newest = query.order_by(Plan.job_id.desc()).limit(MOST_ALIKE)
        return _facts(self._connection.execute(newest).all())

    def speeds(self, model: Digest, machine: Machine) -> dict[Digest, Speed]:
        """The newest measurement of each plan on the machine's GPU."""
        if machine.gpu is None:
            return {}
        query = (
            select(Benchmark.plan_digest, Benchmark.measurement, Benchmark.options)
            .where(Benchmark.gpu == machine.gpu, Benchmark.model_digest == str(model))
            .order_by(Benchmark.job_id.desc())
            .limit(_MOST_MEASURED)
        )
        found: dict[Digest, Speed] = {}
        for row in self._connection.execute(query):
            found.setdefault(Digest(row.plan_digest), _speed(row))
        return found

    def plan(self, job_id: str) -> PlanView:
        return views.plan_view(self._connection.execute(select(Plan).where(Plan.job_id == job_id)).one())


@cache  # SQLAlchemy keeps what it has worked out about a statement
def _plans() -> CompoundSelect[Any]:
    """Those for its GPU or capability and its runtime, and portable ones of this runtime or of any, if
    version-compatible; and near to them, the newest for its GPU and the newest of all.
    """
    of_gpu = Plan.gpu.in_([bindparam("gpu"), bindparam("capability")])
    same_runtime = Plan.runtime == bindparam("runtime")
    return union_all(
        _newest(MOST_ALIKE, of_gpu, same_runtime, may_fit=True),
        _newest(MOST_ALIKE, Plan.portable, same_runtime | _VERSION_COMPATIBLE, may_fit=True),
        _newest(_MOST_NEAR, of_gpu, may_fit=False),
        _newest(_MOST_NEAR, may_fit=False),
    )


def _newest(limit: int, *which: ColumnExpressionArgument[bool], may_fit: bool) -> Select[Any]:
    query = select(*_COLUMNS, literal(may_fit).label("may_fit"))
    mine = query.where(Plan.model_digest == bindparam("model"), *which)
    return select(mine.order_by(Plan.job_id.desc()).limit(limit).subquery())


def _facts(rows: Sequence[Row[Any]]) -> list[PlanFacts]:
    """Each job once. The farm wrote the documents: checking them again would take most of the time."""
    return [
        PlanFacts(
            digest=Digest(row.digest),
            job_id=row.job_id,
            target=_target(**row.spec["target"]),
            config=row.spec.get("config", {}),
            profiles=row.spec.get("profiles", []),
            created_at=row.created_at,
        )
        for row in {row.job_id: row for row in rows}.values()
    ]


@lru_cache(maxsize=1024)
def _target(gpu: str, compute_capability: str, runtime: str, platform: str = DEFAULT_PLATFORM) -> Target:
    return Target.model_construct(
        gpu=gpu, compute_capability=compute_capability, runtime=runtime, platform=platform
    )


def _speed(row: Row[Any]) -> Speed:
    """With several streams a GPU time is that of one among them: such are compared among themselves."""
    options = {name: row.options.get(name) for name in ("inf_streams", "cuda_graph", "transfers")}
    setting = canonical_json({"shapes": row.measurement["shapes"], **options}).decode()
    return Speed(milliseconds=row.measurement["gpu_compute"]["median"], setting=setting)
