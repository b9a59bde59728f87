"""How long past jobs took"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "20261125"
down_revision = "20261122"
branch_labels = None
depends_on = None

_SUCCEEDED = sa.text("state = 'succeeded'")


def upgrade() -> None:
    op.create_index(
        "ix_jobs_history_of_model",
        "jobs",
        ["queue", "kind", "model_digest", "id"],
        unique=False,
        postgresql_where=_SUCCEEDED,
        sqlite_where=_SUCCEEDED,
    )
    op.create_index(
        "ix_jobs_history",
        "jobs",
        ["queue", "kind", "id"],
        unique=False,
        postgresql_where=_SUCCEEDED,
        sqlite_where=_SUCCEEDED,
    )


def downgrade() -> None:
    op.drop_index("ix_jobs_history", table_name="jobs")
    op.drop_index("ix_jobs_history_of_model", table_name="jobs")
