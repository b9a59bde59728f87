"""Campaigns"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "20261128"
down_revision = "20261126"
branch_labels = None
depends_on = None

_JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")


def upgrade() -> None:
    op.create_table(
        "campaigns",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("name", sa.String(length=100), nullable=False),
        sa.Column("principal", sa.String(length=64), nullable=False),
        sa.Column("declaration", _JSON, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("cancelled_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_campaigns")),
    )
    op.create_index("uq_campaigns_name", "campaigns", ["name"], unique=True)
    op.create_table(
        "campaign_cells",
        sa.Column("campaign_id", sa.String(length=36), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("model_name", sa.String(length=200), nullable=False),
        sa.Column("model_digest", sa.String(length=71), nullable=False),
        sa.Column("config", sa.String(length=100), nullable=False),
        sa.Column("gpus", _JSON, nullable=False),
        sa.Column("target", _JSON, nullable=False),
        sa.Column("spec", _JSON, nullable=False),
        sa.Column("build_key", sa.String(length=64), nullable=False),
        sa.Column("disposition", sa.String(length=16), nullable=True),
        sa.Column("error", _JSON, nullable=True),
        sa.ForeignKeyConstraint(
            ["campaign_id"], ["campaigns.id"], name=op.f("fk_campaign_cells_campaign_id")
        ),
        sa.PrimaryKeyConstraint("campaign_id", "position", name=op.f("pk_campaign_cells")),
    )
    op.create_index("ix_campaign_cells_build_key", "campaign_cells", ["build_key"], unique=False)
    op.create_index("ix_campaign_cells_model_digest", "campaign_cells", ["model_digest"], unique=False)
    op.add_column("submissions", sa.Column("campaign_id", sa.String(length=36), nullable=True))
    op.create_index("uq_submissions_campaign", "submissions", ["campaign_id", "job_id"], unique=True)


def downgrade() -> None:
    op.drop_index("uq_submissions_campaign", table_name="submissions")
    op.drop_column("submissions", "campaign_id")
    op.drop_index("ix_campaign_cells_model_digest", table_name="campaign_cells")
    op.drop_index("ix_campaign_cells_build_key", table_name="campaign_cells")
    op.drop_table("campaign_cells")
    op.drop_index("uq_campaigns_name", table_name="campaigns")
    op.drop_table("campaigns")
