"""Finding the plans of a model that fit a machine"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "20261202"
down_revision = "20261201"
branch_labels = None
depends_on = None

# The same text of JSON on both databases; fields that were not asked for are not in it.
_PORTABLE = """
UPDATE plans SET portable = true
WHERE CAST(spec AS TEXT) LIKE '%"version_compatible": true%'
   OR CAST(spec AS TEXT) LIKE '%"hardware_compatibility_level": "%'
"""


def upgrade() -> None:
    op.add_column("plans", sa.Column("portable", sa.Boolean(), server_default=sa.false(), nullable=False))
    op.execute(_PORTABLE)
    op.create_index(
        "ix_plans_model_digest_gpu_runtime_job_id",
        "plans",
        ["model_digest", "gpu", "runtime", "job_id"],
        unique=False,
    )
    op.create_index("ix_plans_model_digest_job_id", "plans", ["model_digest", "job_id"], unique=False)
    op.create_index(
        "ix_benchmarks_model_digest_gpu_job_id",
        "benchmarks",
        ["model_digest", "gpu", "job_id"],
        unique=False,
    )
    op.create_index(
        "ix_plans_portable",
        "plans",
        ["model_digest", "job_id"],
        unique=False,
        postgresql_where=sa.text("portable"),
        sqlite_where=sa.text("portable"),
    )


def downgrade() -> None:
    op.drop_index(
        "ix_plans_portable",
        table_name="plans",
        postgresql_where=sa.text("portable"),
        sqlite_where=sa.text("portable"),
    )
    op.drop_index("ix_benchmarks_model_digest_gpu_job_id", table_name="benchmarks")
    op.drop_index("ix_plans_model_digest_job_id", table_name="plans")
    op.drop_index("ix_plans_model_digest_gpu_runtime_job_id", table_name="plans")
    op.drop_column("plans", "portable")
