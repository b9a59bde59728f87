"""Campaigns: what is wanted, and how each cell of it stands."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, delete, insert, select, update
from uuid_utils import uuid7

from trtfarm.contract.campaign import CampaignRequest, CellState, CellView
from trtfarm.contract.jobs import Disposition, JobState
from trtfarm.contract.spec import BuildSpec
from trtfarm.contract.target import Target
from trtfarm.contract.v1 import ErrorView
from trtfarm.errors import NotFoundError
from trtfarm_db.base import db_now, dialect_insert
from trtfarm_db.models import Campaign, CampaignCell
from trtfarm_db.repositories.batches import BatchRepository, Known


@dataclass(frozen=True)
class Wanted:
    """A cell of a declaration. ``error``: it cannot be submitted."""

    name: str
    config: str
    gpus: tuple[str, ...]
    spec: BuildSpec
    build_key: str
    error: ErrorView | None = None


@dataclass(frozen=True)
class CampaignRow:
    campaign_id: str
    name: str
    principal: str
    request: CampaignRequest
    created_at: datetime
    updated_at: datetime
    cancelled_at: datetime | None


class CampaignRepository:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def declare(self, request: CampaignRequest, principal: str) -> str:
        """The id of the campaign of that name, which now is declared so. Locks it until the commit."""
        declaration = request.model_dump(mode="json", exclude_none=True, exclude={"retry_failed"})
        statement = dialect_insert(self._connection.dialect.name, Campaign).values(
            id=str(uuid7()), name=request.identity, principal=principal, declaration=declaration
        )
        statement = statement.on_conflict_do_update(
            index_elements=[Campaign.name],
            set_={
                "principal": principal,
                "declaration": statement.excluded.declaration,
                "updated_at": db_now(),
                "cancelled_at": None,
            },
        ).returning(Campaign.id)
        return str(self._connection.execute(statement).scalar_one())

    def lock(self, campaign_id: str, *, cancelled: bool) -> None:
        """Until the commit; says whether the campaign is cancelled now."""
        self._connection.execute(
            update(Campaign)
            .where(Campaign.id == campaign_id)
            .values(updated_at=db_now(), cancelled_at=db_now() if cancelled else None)
        )

    def replace_cells(
        self, campaign_id: str, cells: Sequence[Wanted], dispositions: dict[str, Disposition | None]
    ) -> tuple[int, int]:
        """How many cells were not there before, and how many are no more."""
        before = {
            tuple(row)
            for row in self._connection.execute(
                select(CampaignCell.model_name, CampaignCell.config, CampaignCell.build_key).where(
                    CampaignCell.campaign_id == campaign_id
                )
            )
        }
        now = {(cell.name, cell.config, cell.build_key) for cell in cells}
        self._connection.execute(delete(CampaignCell).where(CampaignCell.campaign_id == campaign_id))
        rows = [
            {
                "campaign_id": campaign_id,
                "position": position,
                "model_name": cell.name,
                "model_digest": str(cell.spec.model),
                "config": cell.config,
                "gpus": list(cell.gpus),
                "target": cell.spec.target.model_dump(mode="json"),
                "spec": cell.spec.model_dump(mode="json", exclude_none=True),
                "build_key": cell.build_key,
                "disposition": dispositions.get(cell.build_key),
                "error": cell.error.model_dump(mode="json") if cell.error else None,
            }
            for position, cell in enumerate(cells)
        ]
        self._connection.execute(insert(CampaignCell), rows)
        return len(now - before), len(before - now)

    def find(self, name: str) -> CampaignRow:
        """By id or name. Raises NotFoundError."""
        row = self._connection.execute(
            select(Campaign)
            .where((Campaign.id == name) | (Campaign.name == name))
            .order_by((Campaign.id == name).desc())
            .limit(1)
        ).first()
        if row is None:
            raise NotFoundError(
                f"There is no campaign {name[:100]}.", hint="trtfarm campaign list shows them."
            )
        return _campaign(row)

    def page(self, *, before: str | None = None, limit: int = 50) -> list[CampaignRow]:
        """Newest first, older than the campaign ``before``."""
        query = select(Campaign).order_by(Campaign.id.desc()).limit(limit)
        if before:
            query = query.where(Campaign.id < before)
        return [_campaign(row) for row in self._connection.execute(query)]

    def names(self, campaign_ids: Collection[str]) -> dict[str, str]:
        rows = self._connection.execute(
            select(Campaign.id, Campaign.name).where(Campaign.id.in_(campaign_ids))
        )
        return {row.id: row.name for row in rows}

    def wanted(self, campaign_id: str) -> list[Wanted]:
        rows = self._connection.execute(
            select(CampaignCell)
            .where(CampaignCell.campaign_id == campaign_id)
            .order_by(CampaignCell.position)
        )
        return [
            Wanted(
                name=row.model_name,
                config=row.config,
                gpus=tuple(row.gpus),
                spec=BuildSpec.model_validate(row.spec),
                build_key=row.build_key,
                error=ErrorView.model_validate(row.error) if row.error else None,
            )
            for row in rows
        ]

    def cells(self, campaign_id: str) -> list[CellView]:
        """In the order declared."""
        return [cell for _, cell in self._cells(CampaignCell.campaign_id == campaign_id)]

    def every_cell(self, model: str | None = None) -> list[tuple[str, CellView]]:
        """(campaign id, cell) of every campaign, of one model or of all."""
        return self._cells(*([CampaignCell.model_digest == model] if model else []))

    def states(self, campaign_ids: Collection[str]) -> dict[str, list[CellState]]:
        """Of every cell, by campaign."""
        rows = self._connection.execute(
            select(CampaignCell.campaign_id, CampaignCell.build_key, CampaignCell.error).where(
                CampaignCell.campaign_id.in_(campaign_ids)
            )
        ).all()
        known = BatchRepository(self._connection).known(row.build_key for row in rows)
        found: dict[str, list[CellState]] = {campaign_id: [] for campaign_id in campaign_ids}
        for row in rows:
            found[row.campaign_id].append(_state(row, known.get(row.build_key)))
        return found

    def _cells(self, *where: ColumnElement[bool]) -> list[tuple[str, CellView]]:
        rows = self._connection.execute(
            select(CampaignCell).where(*where).order_by(CampaignCell.campaign_id, CampaignCell.position)
        ).all()
        known = BatchRepository(self._connection).known(row.build_key for row in rows)
        return [(row.campaign_id, _cell(row, known.get(row.build_key))) for row in rows]


def _state(row: Row[Any], known: Known | None) -> CellState:
    if row.error:
        return CellState.REFUSED
    if known is None:
        return CellState.MISSING
    if known.refused:
        return CellState.REFUSED
    if known.state is JobState.SUCCEEDED and not known.plan_is_there:
        return CellState.LOST
    return CellState(known.state.value)


def _cell(row: Row[Any], known: Known | None) -> CellView:
    error = ErrorView.model_validate(row.error) if row.error else known and known.error
    return CellView(
        name=row.model_name,
        model=row.model_digest,
        config=row.config,
        target=Target.model_validate(row.target),
        gpus=tuple(row.gpus),
        state=_state(row, known),
        disposition=row.disposition,
        build_key=row.build_key,
        job_id=known and known.job_id,
        plan=known and known.plan,
        build_seconds=known and known.build_seconds,
        progress=known and known.progress,
        error=error,
    )


def _campaign(row: Row[Any]) -> CampaignRow:
    return CampaignRow(
        campaign_id=row.id,
        name=row.name,
        principal=row.principal,
        request=CampaignRequest.model_validate(row.declaration),
        created_at=row.created_at,
        updated_at=row.updated_at,
        cancelled_at=row.cancelled_at,
    )
