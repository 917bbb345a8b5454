"""Requests that were sent twice: hashes of clients' own retries, and claims on Idempotency-Keys."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

HASH = "of the request that made it, where its client may send that again by itself"
CLAIM = "who uses the key at the moment; null: it was used"


def upgrade() -> None:
    op.add_column("jobs", sa.Column("request_hash", sa.LargeBinary, comment=HASH))
    op.create_index(
        "ix_jobs_request_hash",
        "jobs",
        ["request_hash"],
        postgresql_where=sa.text("request_hash IS NOT NULL"),
    )
    op.alter_column("idempotency_keys", "job_id", nullable=True)
    op.add_column(
        "idempotency_keys",
        sa.Column("object_id", sa.Text, comment="what it was used for, where that is no job"),
    )
    op.add_column("idempotency_keys", sa.Column("claim", sa.Text, comment=CLAIM))
    op.add_column("idempotency_keys", sa.Column("claimed_at", sa.DateTime(timezone=True)))


def downgrade() -> None:
    op.execute("DELETE FROM idempotency_keys WHERE job_id IS NULL")
    for column in ("claimed_at", "claim", "object_id"):
        op.drop_column("idempotency_keys", column)
    op.alter_column("idempotency_keys", "job_id", nullable=False)
    op.drop_index("ix_jobs_request_hash", "jobs")
    op.drop_column("jobs", "request_hash")
