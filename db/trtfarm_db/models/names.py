"""Names of models, and how they have moved."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, ForeignKey, Identity, Index, Integer, String
from sqlalchemy.orm import Mapped, mapped_column

from trtfarm_db.base import Base, UtcDateTime, db_now

_DIGEST = String(71)
_NAME = String(200)
_TAG = String(128)


class ModelTag(Base):
    """What a name stands for now."""

    __tablename__ = "model_tags"

    name: Mapped[str] = mapped_column(_NAME, primary_key=True)
    tag: Mapped[str] = mapped_column(_TAG, primary_key=True)
    model_digest: Mapped[str] = mapped_column(ForeignKey("models.digest"), index=True)
    moved_at: Mapped[datetime] = mapped_column(UtcDateTime, default=db_now())


class ModelTagMove(Base):
    """Appended with every change of ``model_tags``; without a model, the name was taken away."""

    __tablename__ = "model_tag_moves"

    id: Mapped[int] = mapped_column(
        BigInteger().with_variant(Integer, "sqlite"), Identity(always=False), primary_key=True
    )
    name: Mapped[str] = mapped_column(_NAME)
    tag: Mapped[str] = mapped_column(_TAG)
    model_digest: Mapped[str | None] = mapped_column(ForeignKey("models.digest"))
    previous_digest: Mapped[str | None] = mapped_column(ForeignKey("models.digest"))
    principal: Mapped[str] = mapped_column(String(64))
    at: Mapped[datetime] = mapped_column(UtcDateTime, default=db_now())

    __table_args__ = (Index("ix_model_tag_moves_name_tag_id", "name", "tag", "id"),)
