"""Standing orders, and what there is for them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, delete, func, select, update
from uuid_utils import uuid7

from trtfarm.contract.benchmark import BenchmarkView
from trtfarm.contract.digest import Digest
from trtfarm.contract.jobs import JobState
from trtfarm.contract.order import OrderRequest
from trtfarm.contract.v1 import ErrorView, PlanView
from trtfarm.errors import NotFoundError
from trtfarm_db.base import db_now, dialect_insert
from trtfarm_db.models import ApiKey, Artifact, ArtifactState, Benchmark, Job, Order, Plan
from trtfarm_db.repositories import views

_LOCK = 0x7472_6F72  # "tror": one reconciliation at a time
_PLANS = 5000
_ORDERS: Any = select(Order, ApiKey.revoked_at).outerjoin(ApiKey, ApiKey.id == Order.principal)


@dataclass(frozen=True)
class OrderRow:
    """``revoked``: the key of its principal."""

    order_id: str
    principal: str
    revoked: bool
    request: OrderRequest
    problem: ErrorView | None
    created_at: datetime
    updated_at: datetime
    reconciled_at: datetime | None


class OrderRepository:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def alone(self) -> bool:
        """Whether nobody else reconciles; until the end of the transaction nobody will."""
        if self._connection.dialect.name != "postgresql":
            return True  # an embedded farm is one process
        return bool(self._connection.scalar(select(func.pg_try_advisory_xact_lock(_LOCK))))

    def declare(self, request: OrderRequest, principal: str) -> bool:
        """Whether the order is new."""
        order_id = str(uuid7())
        statement = dialect_insert(self._connection.dialect.name, Order).values(
            id=order_id,
            name=request.name,
            principal=principal,
            declaration=request.model_dump(mode="json", exclude_none=True),
        )
        statement = statement.on_conflict_do_update(
            index_elements=[Order.name],
            set_={
                "principal": principal,  # whoever declares it answers for it from now on
                "declaration": statement.excluded.declaration,
                "updated_at": db_now(),
                "problem": None,
            },
        ).returning(Order.id)
        return bool(self._connection.scalar(statement) == order_id)

    def find(self, name: str) -> OrderRow:
        """By name or id. Raises NotFoundError."""
        row = self._connection.execute(
            _ORDERS.where((Order.name == name) | (Order.id == name)).limit(1)
        ).first()
        if row is None:
            raise _unknown(name)
        return _order(row)

    def all(self) -> list[OrderRow]:
        """In alphabetical order."""
        return [_order(row) for row in self._connection.execute(_ORDERS.order_by(Order.name))]

    def remove(self, order_id: str) -> None:
        self._connection.execute(delete(Order).where(Order.id == order_id))

    def reconciled(self, order_id: str, problem: ErrorView | None) -> None:
        self._connection.execute(
            update(Order)
            .where(Order.id == order_id)
            .values(reconciled_at=db_now(), problem=problem.model_dump(mode="json") if problem else None)
        )

    # --- what there is ---

    def failed_before(self, job_ids: Collection[str], seconds: float) -> set[str]:
        """Those of the jobs that failed at least so long ago."""
        rows = self._connection.scalars(
            select(Job.id).where(
                Job.id.in_(job_ids), Job.state == JobState.FAILED, Job.finished_at < db_now(-seconds)
            )
        )
        return set(rows)

    def plans(self, job_ids: Collection[str]) -> dict[str, PlanView]:
        """By job."""
        rows = self._connection.execute(select(Plan).where(Plan.job_id.in_(job_ids)))
        return {row.job_id: views.plan_view(row) for row in rows}

    def plans_of(self, model: Digest, gpus: Collection[str]) -> list[PlanView]:
        """Of one model for these GPUs, with every runtime; newest first."""
        rows = self._connection.execute(
            select(Plan)
            .join(Artifact, (Artifact.digest == Plan.digest) & (Artifact.state == ArtifactState.READY))
            .where(Plan.model_digest == str(model), Plan.gpu.in_(gpus))
            .order_by(Plan.job_id.desc())
            .limit(_PLANS)
        )
        return [views.plan_view(row) for row in rows]

    def benchmarks(self, job_ids: Collection[str]) -> dict[str, BenchmarkView]:
        """By job."""
        rows = self._connection.execute(select(Benchmark).where(Benchmark.job_id.in_(job_ids)))
        return {row.job_id: views.benchmark_view(row) for row in rows}


def _unknown(name: str) -> NotFoundError:
    return NotFoundError(f"There is no order {name[:100]}.", hint="trtfarm order list shows them.")


def _order(row: Row[Any]) -> OrderRow:
    return OrderRow(
        order_id=row.id,
        principal=row.principal,
        revoked=row.revoked_at is not None,
        request=OrderRequest.model_validate(row.declaration),
        problem=ErrorView.model_validate(row.problem) if row.problem else None,
        created_at=row.created_at,
        updated_at=row.updated_at,
        reconciled_at=row.reconciled_at,
    )
