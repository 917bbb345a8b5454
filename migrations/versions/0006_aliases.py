"""Aliases: names that move from one model to the next."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "model_aliases",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("tenant_id", sa.Text, sa.ForeignKey("tenants.id"), nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column(
            "model", sa.Text, sa.ForeignKey("models.id"), comment="who holds it; null: nobody yet"
        ),
        sa.Column("version", sa.Integer, nullable=False, server_default=sa.text("0")),
        sa.Column(
            "standing", sa.Integer, comment="the version whose model holds it, after rollbacks"
        ),
        sa.Column("gate_job_id", sa.Text, comment="the evaluation of the newest gate"),
        _created_at(),
        sa.Column("moved_at", sa.DateTime(timezone=True)),
        sa.UniqueConstraint("tenant_id", "name", name="uq_model_aliases_tenant_id_name"),
    )
    op.create_index("ix_model_aliases_tenant_id_model", "model_aliases", ["tenant_id", "model"])
    _create_moves()


def _create_moves() -> None:
    op.create_table(
        "model_alias_moves",
        sa.Column("id", sa.BigInteger, sa.Identity(), primary_key=True),
        sa.Column(
            "alias_id",
            sa.Text,
            sa.ForeignKey("model_aliases.id", ondelete="CASCADE"),
            nullable=False,
        ),
        sa.Column("tenant_id", sa.Text, sa.ForeignKey("tenants.id"), nullable=False),
        sa.Column("version", sa.Integer, comment="counts moves; null: a gate that stayed shut"),
        sa.Column("from_model", sa.Text),
        sa.Column("to_model", sa.Text, nullable=False),
        sa.Column("cause", sa.Text, nullable=False, comment="hand, gate or rollback"),
        sa.Column("outcome", sa.Text, nullable=False, comment="moved, kept or superseded"),
        sa.Column(
            "back_to",
            sa.Integer,
            comment="the version before it; of a rollback: the one returned to",
        ),
        sa.Column("job_id", sa.Text, comment="the evaluation of a gate"),
        sa.Column(
            "evaluation", sa.JSON, comment="of a gate: the metric, both values, what was asked"
        ),
        _created_at(),
        sa.UniqueConstraint("alias_id", "version", name="uq_model_alias_moves_alias_id_version"),
    )
    op.create_index("ix_model_alias_moves_alias_id_id", "model_alias_moves", ["alias_id", "id"])


def _created_at() -> sa.Column[object]:
    return sa.Column(
        "created_at",
        sa.DateTime(timezone=True),
        nullable=False,
        server_default=sa.text("clock_timestamp()"),
    )


def downgrade() -> None:
    op.drop_table("model_alias_moves")
    op.drop_table("model_aliases")
