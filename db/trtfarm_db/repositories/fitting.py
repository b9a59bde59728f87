"""Plans of a model that may fit a machine, and those near to it; bounded work, however many there are."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Row, Select, select

from trtfarm.contract.digest import Digest
from trtfarm.contract.fit import PlanFacts
from trtfarm.contract.machine import Machine
from trtfarm.contract.resolve import Speed
from trtfarm.contract.target import Target, capability_target
from trtfarm.contract.v1 import PlanView
from trtfarm.contract.value import canonical_json
from trtfarm_db.models import Benchmark, Plan
from trtfarm_db.repositories import views

MOST_ALIKE = 200  # builds of one model for one GPU and runtime, or portable ones: by their configs
_MOST_NEAR = 30
_MOST_MEASURED = 200
_COLUMNS = (Plan.job_id, Plan.digest, Plan.spec, Plan.created_at)


class FittingRepository:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def candidates(self, model: Digest, machine: Machine) -> list[PlanFacts]:
        """Every plan that may fit: those for its GPU or capability and runtime, and the portable ones."""
        own = self._rows(_of(model).where(Plan.gpu.in_(_gpus(machine)), Plan.runtime == machine.runtime))
        portable = self._rows(_of(model).where(Plan.portable))
        return _facts(own + portable)

    def near(self, model: Digest, machine: Machine) -> list[PlanFacts]:
        """Plans that do not fit, but tell what there is: of its GPU, and the newest of the model."""
        gpus = _of(model).where(Plan.gpu.in_(_gpus(machine)))
        return _facts(self._rows(gpus, _MOST_NEAR) + self._rows(_of(model), _MOST_NEAR))

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

    def _rows(self, query: Select[Any], limit: int = MOST_ALIKE) -> list[Row[Any]]:
        return list(self._connection.execute(query.order_by(Plan.job_id.desc()).limit(limit)))


def _of(model: Digest) -> Select[Any]:
    return select(*_COLUMNS).where(Plan.model_digest == str(model))


def _gpus(machine: Machine) -> list[str]:
    capability = capability_target(machine.compute_capability)
    return [machine.gpu, capability] if machine.gpu else [capability]


def _facts(rows: list[Row[Any]]) -> list[PlanFacts]:
    """Each job once. The farm wrote the documents: checking them again would take most of the time."""
    return [
        PlanFacts(
            digest=Digest(row.digest),
            job_id=row.job_id,
            target=Target.model_construct(**row.spec["target"]),
            config=row.spec.get("config", {}),
            profiles=row.spec.get("profiles", []),
            created_at=row.created_at,
        )
        for row in {row.job_id: row for row in rows}.values()
    ]


def _speed(row: Row[Any]) -> Speed:
    """With several streams a GPU time is that of one among them: such are compared among themselves."""
    options = {name: row.options.get(name) for name in ("inf_streams", "cuda_graph", "transfers")}
    setting = canonical_json({"shapes": row.measurement["shapes"], **options}).decode()
    return Speed(milliseconds=row.measurement["gpu_compute"]["median"], setting=setting)
