"""What polling partners ask of jobs: ids of their own, the pace of a pool, events in safe order."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

DETAIL = "of a fine-tuning job: what was found in its data, what its training said"
DETAIL_NOW = f"{DETAIL}; of a batch: how often each error came"


def upgrade() -> None:
    op.add_column("jobs", sa.Column("client_id", sa.Text, comment="the caller's own id"))
    op.add_column(
        "jobs",
        sa.Column(
            "client_fingerprint",
            sa.LargeBinary,
            comment="SHA-256 of the body that was put there",
        ),
    )
    op.create_index(
        "uq_jobs_tenant_id_client_id",
        "jobs",
        ["tenant_id", "client_id"],
        unique=True,
        postgresql_where=sa.text("client_id IS NOT NULL AND deleted_at IS NULL"),
    )
    op.alter_column("jobs", "detail", comment=DETAIL_NOW, existing_comment=DETAIL)
    op.create_index(
        "ix_shards_pace",
        "shards",
        ["pool", "ended_at"],
        postgresql_where=sa.text("state IN ('succeeded', 'failed')"),
    )
    # In two steps: with its default from the start, every row of the table would be written anew.
    op.add_column(
        "events", sa.Column("xact", sa.BigInteger, comment="the transaction that told it")
    )
    op.alter_column(
        "events",
        "xact",
        server_default=sa.text("CAST(CAST(pg_current_xact_id() AS text) AS bigint)"),
    )


def downgrade() -> None:
    op.drop_column("events", "xact")
    op.drop_index("ix_shards_pace", "shards")
    op.alter_column("jobs", "detail", comment=DETAIL, existing_comment=DETAIL_NOW)
    op.drop_index("uq_jobs_tenant_id_client_id", "jobs")
    op.drop_column("jobs", "client_fingerprint")
    op.drop_column("jobs", "client_id")
