"""Participants of jobs, turns of crashed ones, and what keys have uploaded"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "20261208"
down_revision = "20261206"
branch_labels = None
depends_on = None

_QUEUED = sa.text("state = 'queued'")
_RUNNING = sa.text("state = 'running'")
# Who has created a job; without keys that was "local" as well.
_CREATOR = """
UPDATE jobs SET submitter = (
    SELECT principal FROM submissions WHERE job_id = jobs.id AND disposition = 'created' LIMIT 1
)
WHERE state IN ('queued', 'running')
  AND EXISTS (SELECT 1 FROM submissions WHERE job_id = jobs.id AND disposition = 'created')
"""


def upgrade() -> None:
    zone = sa.DateTime(timezone=True)
    op.drop_index("ix_jobs_running_quota", table_name="jobs")
    op.drop_index("ix_jobs_oldest", table_name="jobs")
    op.drop_index("ix_jobs_claim", table_name="jobs")
    op.add_column(
        "jobs", sa.Column("submitter", sa.String(length=64), server_default="local", nullable=False)
    )
    op.add_column("jobs", sa.Column("turn", sa.String(length=36), server_default="", nullable=False))
    op.execute("UPDATE jobs SET turn = id")
    op.execute(_CREATOR)
    _index("ix_jobs_running_submitter", ["submitter"], _RUNNING)
    _index("ix_jobs_oldest", ["queue", "quota", "turn"], _QUEUED)
    _index("ix_jobs_claim", ["queue", "quota", "crashes", sa.text("priority DESC"), "id"], _QUEUED)

    op.add_column(
        "submissions", sa.Column("project", sa.String(length=64), server_default="default", nullable=False)
    )
    op.add_column("submissions", sa.Column("withdrawn_at", zone, nullable=True))
    op.drop_index("uq_submissions_campaign", table_name="submissions")
    op.execute("ALTER TABLE submissions RENAME COLUMN campaign_id TO origin_id")
    op.create_index("uq_submissions_origin", "submissions", ["origin_id", "job_id"], unique=True)

    op.create_table(
        "quota_members",
        sa.Column("quota", sa.String(length=16), nullable=False),
        sa.Column("key_id", sa.String(length=16), nullable=False),
        sa.PrimaryKeyConstraint("quota", "key_id", name=op.f("pk_quota_members")),
    )
    op.execute(
        "INSERT INTO quota_members (quota, key_id) SELECT id, id FROM api_keys WHERE max_running IS NOT NULL"
    )

    op.add_column("api_keys", sa.Column("max_bytes", sa.BigInteger(), nullable=True))
    op.create_table(
        "uploaded_files",
        sa.Column("principal", sa.String(length=64), nullable=False),
        sa.Column("digest", sa.String(length=71), nullable=False),
        sa.PrimaryKeyConstraint("principal", "digest", name=op.f("pk_uploaded_files")),
    )
    op.execute(
        "INSERT INTO uploaded_files (principal, digest)"
        " SELECT DISTINCT principal, digest FROM uploads WHERE completed_at IS NOT NULL"
    )


def downgrade() -> None:
    op.drop_table("uploaded_files")
    op.drop_column("api_keys", "max_bytes")
    op.drop_table("quota_members")
    op.drop_index("uq_submissions_origin", table_name="submissions")
    op.execute("ALTER TABLE submissions RENAME COLUMN origin_id TO campaign_id")
    op.create_index("uq_submissions_campaign", "submissions", ["campaign_id", "job_id"], unique=True)
    op.drop_column("submissions", "withdrawn_at")
    op.drop_column("submissions", "project")
    op.drop_index("ix_jobs_claim", table_name="jobs")
    op.drop_index("ix_jobs_oldest", table_name="jobs")
    op.drop_index("ix_jobs_running_submitter", table_name="jobs")
    # Jobs of several keys count against the first of them again.
    op.execute("UPDATE jobs SET quota = submitter WHERE quota LIKE '+%'")
    op.drop_column("jobs", "turn")
    op.drop_column("jobs", "submitter")
    _index("ix_jobs_claim", ["queue", "quota", sa.text("priority DESC"), "id"], _QUEUED)
    _index("ix_jobs_oldest", ["queue", "quota", "id"], _QUEUED)
    _index("ix_jobs_running_quota", ["quota"], _RUNNING)


def _index(name: str, columns: list[sa.TextClause | str], where: sa.TextClause) -> None:
    op.create_index(name, "jobs", columns, unique=False, postgresql_where=where, sqlite_where=where)
