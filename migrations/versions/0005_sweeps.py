"""Sweeps: trainings that search for their hyperparameters."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "sweeps",
        sa.Column(
            "job_id", sa.Text, sa.ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True
        ),
        sa.Column("trials", sa.Integer, nullable=False, comment="how many there are to be"),
        sa.Column("metric", sa.Text, nullable=False),
        sa.Column("minimize", sa.Boolean, nullable=False),
        sa.Column("pruning", sa.Boolean, nullable=False),
    )
    op.create_table(
        "trials",
        sa.Column(
            "job_id", sa.Text, sa.ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True
        ),
        sa.Column(
            "parent_id",
            sa.Text,
            sa.ForeignKey("sweeps.job_id", ondelete="CASCADE"),
            nullable=False,
            comment="the fine-tuning job that searches",
        ),
        sa.Column(
            "number", sa.Integer, nullable=False, comment="from 1, in the order of suggestion"
        ),
        sa.Column("params", sa.JSON, nullable=False, comment="what was suggested, by name"),
        sa.Column(
            "value", sa.Double, comment="of the sweep's metric, of the model that was delivered"
        ),
        sa.Column(
            "evaluations",
            sa.JSON,
            nullable=False,
            server_default="[]",
            comment="the metric's values in their order, once it has ended",
        ),
        sa.Column("pruned_at", sa.DateTime(timezone=True)),
        sa.Column(
            "ended_at",
            sa.DateTime(timezone=True),
            comment="when its end was counted; null: it is open",
        ),
        sa.UniqueConstraint("parent_id", "number", name="uq_trials_parent_id_number"),
    )
    op.create_index(
        "ix_trials_open", "trials", ["parent_id"], postgresql_where=sa.text("ended_at IS NULL")
    )


def downgrade() -> None:
    op.drop_table("trials")
    op.drop_table("sweeps")
