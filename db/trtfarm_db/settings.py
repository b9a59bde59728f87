"""How to reach the database."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, SecretStr


class DatabaseSettings(BaseModel):
    """``url`` as SQLAlchemy writes it: ``postgresql+psycopg://user:password@host/name`` or ``sqlite:///path``.

    ``silence_seconds``: how long a server's host may be silent on a connection before that is given up.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: SecretStr = SecretStr("postgresql+psycopg://trtfarm@127.0.0.1:5432/trtfarm")
    pool_size: int = Field(default=10, ge=1)
    connect_timeout_seconds: int = Field(default=5, ge=1)
    statement_timeout_seconds: float = Field(default=15, gt=0)
    silence_seconds: float = Field(default=10, ge=1)
