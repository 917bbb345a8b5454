"""Jobs that measure models and make smaller ones."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "job_models",
        sa.Column("job_id", sa.Text, sa.ForeignKey("jobs.id", ondelete="CASCADE"), nullable=False),
        sa.Column("tenant_id", sa.Text, sa.ForeignKey("tenants.id"), nullable=False),
        sa.Column(
            "model_id",
            sa.Text,
            nullable=False,
            comment="stays for as long as the job is open; it may be a checkpoint's",
        ),
        sa.PrimaryKeyConstraint("job_id", "model_id", name="pk_job_models"),
    )
    op.create_index("ix_job_models_model_id", "job_models", ["model_id"])


def downgrade() -> None:
    op.drop_table("job_models")
