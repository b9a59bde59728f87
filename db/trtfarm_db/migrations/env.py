"""Alembic's entry point; trtfarm_db.schema hands it an open connection."""

from __future__ import annotations

from alembic import context

import trtfarm_db.models  # noqa: F401 - fills the metadata
from trtfarm_db.base import Base

connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=Base.metadata,
    render_as_batch=connection.dialect.name == "sqlite",
    compare_type=True,
)
with context.begin_transaction():
    context.run_migrations()
