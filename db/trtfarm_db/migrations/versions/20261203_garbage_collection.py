"""States of artifacts, files of models, inputs of jobs, uploads that expired"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "20261203"
down_revision = "20261202"
branch_labels = None
depends_on = None


def upgrade() -> None:
    zone = sa.DateTime(timezone=True)
    op.add_column("artifacts", sa.Column("touched_at", zone, nullable=True))
    op.add_column("artifacts", sa.Column("state", sa.String(length=16), nullable=True))
    op.execute("UPDATE artifacts SET touched_at = created_at, state = 'ready'")
    with op.batch_alter_table("artifacts") as batch:
        batch.alter_column("touched_at", existing_type=zone, nullable=False)
        batch.alter_column("state", existing_type=sa.String(length=16), nullable=False)
    op.create_index("ix_artifacts_state_verified_at", "artifacts", ["state", "verified_at"], unique=False)
    op.create_table(
        "model_files",
        sa.Column("model_digest", sa.String(length=71), nullable=False),
        sa.Column("digest", sa.String(length=71), nullable=False),
        sa.ForeignKeyConstraint(
            ["model_digest"], ["models.digest"], name=op.f("fk_model_files_model_digest")
        ),
        sa.PrimaryKeyConstraint("model_digest", "digest", name=op.f("pk_model_files")),
    )
    _fill_model_files(op.get_bind())
    op.create_table(
        "job_inputs",
        sa.Column("job_id", sa.String(length=36), nullable=False),
        sa.Column("digest", sa.String(length=71), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_job_inputs_job_id")),
        sa.PrimaryKeyConstraint("job_id", "digest", name=op.f("pk_job_inputs")),
    )
    op.add_column("uploads", sa.Column("expired_at", zone, nullable=True))


def _fill_model_files(connection: sa.Connection) -> None:
    models = sa.table("models", sa.column("digest", sa.String), sa.column("manifest", sa.JSON))
    files = sa.table("model_files", sa.column("model_digest", sa.String), sa.column("digest", sa.String))
    rows = [
        {"model_digest": row.digest, "digest": digest}
        for row in connection.execute(sa.select(models))
        for digest in {row.manifest["onnx"], *(each["digest"] for each in row.manifest["external_data"])}
    ]
    if rows:
        connection.execute(sa.insert(files), rows)


def downgrade() -> None:
    op.drop_column("uploads", "expired_at")
    op.drop_table("job_inputs")
    op.drop_table("model_files")
    op.drop_index("ix_artifacts_state_verified_at", table_name="artifacts")
    op.drop_column("artifacts", "state")
    op.drop_column("artifacts", "touched_at")
