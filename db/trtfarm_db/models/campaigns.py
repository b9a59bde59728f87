"""Campaigns and their cells."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from trtfarm_db.base import Base, Json, UtcDateTime, db_now

_ID = String(36)
_DIGEST = String(71)


class Campaign(Base):
    """``declaration``: the request, as its canonical document."""

    __tablename__ = "campaigns"

    id: Mapped[str] = mapped_column(_ID, primary_key=True)
    name: Mapped[str] = mapped_column(String(100))
    principal: Mapped[str] = mapped_column(String(64))
    declaration: Mapped[dict[str, Any]] = mapped_column(Json)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, default=db_now())
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime, default=db_now())
    cancelled_at: Mapped[datetime | None] = mapped_column(UtcDateTime)

    __table_args__ = (Index("uq_campaigns_name", "name", unique=True),)


class CampaignCell(Base):
    """One wanted build. Its job is whichever speaks for the build key: a cell points at no job.

    ``error``: why it was not submitted; ``disposition``: what its newest submission did.
    """

    __tablename__ = "campaign_cells"

    campaign_id: Mapped[str] = mapped_column(ForeignKey("campaigns.id"), primary_key=True)
    position: Mapped[int] = mapped_column(primary_key=True)
    model_name: Mapped[str] = mapped_column(String(200))
    model_digest: Mapped[str] = mapped_column(_DIGEST)
    config: Mapped[str] = mapped_column(String(100))
    gpus: Mapped[list[str]] = mapped_column(Json)
    target: Mapped[dict[str, Any]] = mapped_column(Json)
    spec: Mapped[dict[str, Any]] = mapped_column(Json)
    build_key: Mapped[str] = mapped_column(String(64))
    disposition: Mapped[str | None] = mapped_column(String(16))
    error: Mapped[dict[str, Any] | None] = mapped_column(Json)

    __table_args__ = (
        Index("ix_campaign_cells_build_key", "build_key"),
        Index("ix_campaign_cells_model_digest", "model_digest"),
    )
