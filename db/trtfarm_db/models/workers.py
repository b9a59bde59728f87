"""Who builds, and who may ask."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, String
from sqlalchemy.orm import Mapped, mapped_column

from trtfarm_db.base import Base, Json, UtcDateTime, db_now


class Worker(Base):
    """A worker process. Rows stay for a while after it is gone: they tell what the farm can build."""

    __tablename__ = "workers"

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    hostname: Mapped[str] = mapped_column(String(255))
    runtime: Mapped[str] = mapped_column(String(80))
    platform: Mapped[str] = mapped_column(String(40))
    gpus: Mapped[list[str]] = mapped_column(Json)
    slots: Mapped[int]
    device: Mapped[dict[str, Any] | None] = mapped_column(Json)
    draining: Mapped[bool] = mapped_column(default=False)
    condition: Mapped[dict[str, Any] | None] = mapped_column(Json)
    started_at: Mapped[datetime] = mapped_column(UtcDateTime, default=db_now())
    last_seen_at: Mapped[datetime] = mapped_column(UtcDateTime, default=db_now())
    stopped_at: Mapped[datetime | None] = mapped_column(UtcDateTime)


class ApiKey(Base):
    """An API key; only the SHA-256 of its secret is kept.

    ``max_running``: of its jobs at a time. ``max_bytes``: of what it has uploaded and announced.
    """

    __tablename__ = "api_keys"

    id: Mapped[str] = mapped_column(String(16), primary_key=True)
    name: Mapped[str] = mapped_column(String(100))
    scope: Mapped[str] = mapped_column(String(16))
    max_running: Mapped[int | None]
    max_bytes: Mapped[int | None] = mapped_column(BigInteger)
    secret_hash: Mapped[str] = mapped_column(String(64))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, default=db_now())
    last_used_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    revoked_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
