"""How a worker is: paused, and what waits in its spool"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "20261201"
down_revision = "20261130"
branch_labels = None
depends_on = None

_JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")


def upgrade() -> None:
    op.add_column("workers", sa.Column("condition", _JSON, nullable=True))


def downgrade() -> None:
    op.drop_column("workers", "condition")
