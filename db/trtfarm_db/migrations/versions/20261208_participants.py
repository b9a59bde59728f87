"""Participants of jobs"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "20261208"
down_revision = "20261206"
branch_labels = None
depends_on = None

# Who has created a job; without keys that was "local" as well.
_CREATOR = """
UPDATE jobs SET submitter = (
    SELECT principal FROM submissions WHERE job_id = jobs.id AND disposition = 'created' LIMIT 1
)
WHERE state IN ('queued', 'running')
  AND EXISTS (SELECT 1 FROM submissions WHERE job_id = jobs.id AND disposition = 'created')
"""


def upgrade() -> None:
    op.add_column(
        "jobs", sa.Column("submitter", sa.String(length=64), server_default="local", nullable=False)
    )
    op.execute(_CREATOR)


def downgrade() -> None:
    op.drop_column("jobs", "submitter")
