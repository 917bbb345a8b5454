"""Indexes for claims in which tenants take turns, and for finding a file's open readers."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

READY = sa.text("state = 'ready'")


def upgrade() -> None:
    op.drop_index("ix_shards_ready", "shards")
    op.drop_index("ix_shards_window", "shards")
    op.create_index("ix_shards_ready", "shards", ["pool", "ready_seq"], postgresql_where=READY)
    op.create_index(
        "ix_shards_window",
        "shards",
        ["pool", "tenant_id", "priority", "ready_seq"],
        postgresql_where=READY,
    )
    op.create_index(
        "ix_jobs_input_file_id",
        "jobs",
        ["input_file_id"],
        postgresql_where=sa.text("state IN ('queued', 'running') AND input_file_id IS NOT NULL"),
    )


def downgrade() -> None:
    op.drop_index("ix_jobs_input_file_id", "jobs")
    op.drop_index("ix_shards_window", "shards")
    op.drop_index("ix_shards_ready", "shards")
    op.create_index(
        "ix_shards_ready", "shards", ["pool", "priority", "ready_seq"], postgresql_where=READY
    )
    op.create_index("ix_shards_window", "shards", ["tenant_id", "pool"], postgresql_where=READY)
