"""Text as it is generated."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Unlogged: a crash of the database empties it, and streams then wait for the result.
    op.create_table(
        "deltas",
        sa.Column("tenant_id", sa.Text, nullable=False),
        sa.Column("job_id", sa.Text, nullable=False),
        sa.Column("epoch", sa.Integer, nullable=False, comment="the attempt that says it"),
        sa.Column("seq", sa.Integer, nullable=False, comment="from 0 in each attempt"),
        sa.Column(
            "pieces",
            sa.JSON,
            nullable=False,
            comment="[choice, characters of its text before this, what follows], …",
        ),
        sa.PrimaryKeyConstraint("job_id", "epoch", "seq", name="pk_deltas"),
        prefixes=["UNLOGGED"],
    )


def downgrade() -> None:
    op.drop_table("deltas")
