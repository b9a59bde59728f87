"""The oldest job's turn, and quotas of API keys"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "20261130"
down_revision = "20261128"
branch_labels = None
depends_on = None

_QUEUED = sa.text("state = 'queued'")
_RUNNING = sa.text("state = 'running'")


def upgrade() -> None:
    op.add_column("api_keys", sa.Column("max_running", sa.Integer(), nullable=True))
    op.add_column("jobs", sa.Column("quota", sa.String(length=16), nullable=False, server_default=""))
    op.drop_index("ix_jobs_claim", table_name="jobs")
    op.create_index(
        "ix_jobs_claim",
        "jobs",
        ["queue", "quota", sa.text("priority DESC"), "id"],
        unique=False,
        postgresql_where=_QUEUED,
        sqlite_where=_QUEUED,
    )
    op.create_index(
        "ix_jobs_oldest",
        "jobs",
        ["queue", "quota", "id"],
        unique=False,
        postgresql_where=_QUEUED,
        sqlite_where=_QUEUED,
    )
    op.create_index(
        "ix_jobs_running_quota",
        "jobs",
        ["quota"],
        unique=False,
        postgresql_where=_RUNNING,
        sqlite_where=_RUNNING,
    )


def downgrade() -> None:
    op.drop_index("ix_jobs_running_quota", table_name="jobs")
    op.drop_index("ix_jobs_oldest", table_name="jobs")
    op.drop_index("ix_jobs_claim", table_name="jobs")
    op.create_index(
        "ix_jobs_claim",
        "jobs",
        ["queue", sa.text("priority DESC"), "id"],
        unique=False,
        postgresql_where=_QUEUED,
        sqlite_where=_QUEUED,
    )
    op.drop_column("jobs", "quota")
    op.drop_column("api_keys", "max_running")
