"""Names of models"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "20261126"
down_revision = "20261125"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("ix_models_created_at_digest", "models", ["created_at", "digest"], unique=False)
    op.create_table(
        "model_tags",
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("tag", sa.String(length=128), nullable=False),
        sa.Column("model_digest", sa.String(length=71), nullable=False),
        sa.Column("moved_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["model_digest"], ["models.digest"], name=op.f("fk_model_tags_model_digest")),
        sa.PrimaryKeyConstraint("name", "tag", name=op.f("pk_model_tags")),
    )
    op.create_index(op.f("ix_model_tags_model_digest"), "model_tags", ["model_digest"], unique=False)
    op.create_table(
        "model_tag_moves",
        sa.Column(
            "id",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            sa.Identity(always=False),
            nullable=False,
        ),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("tag", sa.String(length=128), nullable=False),
        sa.Column("model_digest", sa.String(length=71), nullable=True),
        sa.Column("previous_digest", sa.String(length=71), nullable=True),
        sa.Column("principal", sa.String(length=64), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["model_digest"], ["models.digest"], name=op.f("fk_model_tag_moves_model_digest")
        ),
        sa.ForeignKeyConstraint(
            ["previous_digest"], ["models.digest"], name=op.f("fk_model_tag_moves_previous_digest")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_model_tag_moves")),
    )
    op.create_index("ix_model_tag_moves_name_tag_id", "model_tag_moves", ["name", "tag", "id"], unique=False)


def downgrade() -> None:
    op.drop_index("ix_model_tag_moves_name_tag_id", table_name="model_tag_moves")
    op.drop_table("model_tag_moves")
    op.drop_index(op.f("ix_model_tags_model_digest"), table_name="model_tags")
    op.drop_table("model_tags")
    op.drop_index("ix_models_created_at_digest", table_name="models")
