"""Productions: a table, a template, checked copy."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "productions",
        _job("job_id"),
        _tenant(),
        sa.Column("rows", sa.Integer, nullable=False, server_default="0", comment="of the data"),
        sa.Column(
            "lines",
            sa.Integer,
            nullable=False,
            server_default="0",
            comment="that its output is to have",
        ),
        sa.Column("round", sa.Integer, nullable=False, server_default="0"),
        sa.Column("phase", sa.Integer, nullable=False, server_default="0"),
        sa.Column(
            "phases",
            sa.Integer,
            nullable=False,
            server_default="1",
            comment="of a round; progress is told by them",
        ),
        sa.Column(
            "found",
            sa.JSON,
            nullable=False,
            server_default="{}",
            comment="what the passes over its data left behind: files, counts",
        ),
    )
    op.create_table(
        "production_batches",
        _job("job_id"),
        _tenant(),
        sa.Column(
            "parent_id",
            sa.Text,
            sa.ForeignKey("productions.job_id", ondelete="CASCADE"),
            nullable=False,
            comment="the production that it is a part of",
        ),
        sa.Column("round", sa.Integer, nullable=False, comment="0 at first, then the retries"),
        sa.Column("phase", sa.Integer, nullable=False, comment="the place in the template's plan"),
        sa.Column("rows", sa.Integer, nullable=False),
        sa.Column(
            "ended_at",
            sa.DateTime(timezone=True),
            comment="when its end was counted; null: it is open",
        ),
        sa.UniqueConstraint(
            "parent_id", "round", "phase", name="uq_production_batches_parent_id_round_phase"
        ),
    )
    op.create_index(
        "ix_production_batches_open",
        "production_batches",
        ["parent_id"],
        postgresql_where=sa.text("ended_at IS NULL"),
    )


def downgrade() -> None:
    op.drop_table("production_batches")
    op.drop_table("productions")


def _job(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.Text, sa.ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)


def _tenant() -> sa.Column[str]:
    return sa.Column("tenant_id", sa.Text, sa.ForeignKey("tenants.id"), nullable=False)
