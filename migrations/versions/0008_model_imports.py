"""Models that tenants bring."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

BEFORE, AFTER = "the fine-tuning job that made it", "the job that made or imported it"


def upgrade() -> None:
    op.alter_column(
        "models", "job_id", existing_type=sa.Text, existing_comment=BEFORE, comment=AFTER
    )


def downgrade() -> None:
    op.alter_column(
        "models", "job_id", existing_type=sa.Text, existing_comment=AFTER, comment=BEFORE
    )
