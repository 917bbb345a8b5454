"""Tenants' weights and what each has been served."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    _weigh_tenants()
    op.add_column(
        "shards",
        sa.Column(
            "model",
            sa.Text,
            comment="that its first row needs; null: none, or it was not known",
        ),
    )
    op.add_column(
        "shards",
        sa.Column(
            "expected_seconds",
            sa.Double,
            comment="of an engine at full load; null: a second a row, for want of a better guess",
        ),
    )
    op.create_table(
        "shares",
        sa.Column("pool", sa.Text, nullable=False),
        sa.Column("tenant_id", sa.Text, nullable=False, comment="empty: the pool's own time"),
        sa.Column("virtual_time", sa.Double, nullable=False, server_default=sa.text("0")),
        sa.PrimaryKeyConstraint("pool", "tenant_id"),
        comment="expected seconds that a tenant was given in a pool, divided by its weight",
    )


def _weigh_tenants() -> None:
    op.add_column(
        "tenants",
        sa.Column(
            "weight",
            sa.Double,
            nullable=False,
            server_default=sa.text("1"),
            comment="its part of a pool, over the weights of all who wait there",
        ),
    )
    op.add_column(
        "tenants",
        sa.Column(
            "max_running_shards",
            sa.Integer,
            comment="at a time, in all pools; null: as many as there is room for",
        ),
    )
    op.create_check_constraint(
        op.f("ck_tenants_weight"), "tenants", "weight > 0 AND weight <= 1000"
    )
    op.create_check_constraint(
        op.f("ck_tenants_max_running_shards"), "tenants", "max_running_shards >= 0"
    )


def downgrade() -> None:
    op.drop_table("shares")
    op.drop_column("shards", "expected_seconds")
    op.drop_column("shards", "model")
    op.drop_constraint(op.f("ck_tenants_max_running_shards"), "tenants")
    op.drop_constraint(op.f("ck_tenants_weight"), "tenants")
    op.drop_column("tenants", "max_running_shards")
    op.drop_column("tenants", "weight")
