"""Timing caches and benchmarks"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "20261122"
down_revision = "20261121"
branch_labels = None
depends_on = None

_JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")


def upgrade() -> None:
    op.create_table(
        "timing_caches",
        sa.Column("key", sa.String(length=64), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("digest", sa.String(length=71), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("gpu", sa.String(length=80), nullable=False),
        sa.Column("runtime", sa.String(length=80), nullable=False),
        sa.Column("device", _JSON, nullable=True),
        sa.Column("entries", sa.Integer(), nullable=True),
        sa.Column("job_id", sa.String(length=36), nullable=True),
        sa.Column("worker_id", sa.String(length=36), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("key", "revision", name=op.f("pk_timing_caches")),
    )
    op.create_index("ix_timing_caches_gpu_runtime", "timing_caches", ["gpu", "runtime"], unique=False)
    op.create_table(
        "benchmarks",
        sa.Column("job_id", sa.String(length=36), nullable=False),
        sa.Column("plan_digest", sa.String(length=71), nullable=False),
        sa.Column("model_digest", sa.String(length=71), nullable=False),
        sa.Column("gpu", sa.String(length=80), nullable=False),
        sa.Column("runtime", sa.String(length=80), nullable=False),
        sa.Column("options", _JSON, nullable=False),
        sa.Column("measurement", _JSON, nullable=False),
        sa.Column("device", _JSON, nullable=False),
        sa.Column("log_digest", sa.String(length=71), nullable=True),
        sa.Column("times_digest", sa.String(length=71), nullable=True),
        sa.Column("layer_profile_digest", sa.String(length=71), nullable=True),
        sa.Column("layer_information_digest", sa.String(length=71), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_benchmarks_job_id")),
        sa.ForeignKeyConstraint(["model_digest"], ["models.digest"], name=op.f("fk_benchmarks_model_digest")),
        sa.PrimaryKeyConstraint("job_id", name=op.f("pk_benchmarks")),
    )
    op.create_index(
        "ix_benchmarks_gpu_runtime_model_digest",
        "benchmarks",
        ["gpu", "runtime", "model_digest"],
        unique=False,
    )
    op.create_index(op.f("ix_benchmarks_plan_digest"), "benchmarks", ["plan_digest"], unique=False)
    op.add_column("jobs", sa.Column("benchmark", _JSON, nullable=True))
    op.add_column("jobs", sa.Column("gpu_uuid", sa.String(length=80), nullable=True))
    op.create_index(
        "uq_jobs_running_gpu_uuid",
        "jobs",
        ["gpu_uuid"],
        unique=True,
        postgresql_where=sa.text("state = 'running'"),
        sqlite_where=sa.text("state = 'running'"),
    )
    op.add_column("plans", sa.Column("timing_cache", _JSON, nullable=True))
    op.add_column("workers", sa.Column("device", _JSON, nullable=True))


def downgrade() -> None:
    op.drop_column("workers", "device")
    op.drop_column("plans", "timing_cache")
    op.drop_index(
        "uq_jobs_running_gpu_uuid",
        table_name="jobs",
        postgresql_where=sa.text("state = 'running'"),
        sqlite_where=sa.text("state = 'running'"),
    )
    op.drop_column("jobs", "gpu_uuid")
    op.drop_column("jobs", "benchmark")
    op.drop_index(op.f("ix_benchmarks_plan_digest"), table_name="benchmarks")
    op.drop_index("ix_benchmarks_gpu_runtime_model_digest", table_name="benchmarks")
    op.drop_table("benchmarks")
    op.drop_index("ix_timing_caches_gpu_runtime", table_name="timing_caches")
    op.drop_table("timing_caches")
