"""Limits, budgets and prices of tenants."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

MILLIONTHS = "millionths of the prices' unit"


def upgrade() -> None:
    op.create_table(
        "tenant_limits",
        sa.Column("tenant_id", sa.Text, sa.ForeignKey("tenants.id"), primary_key=True),
        sa.Column("requests_per_second", sa.Double),
        sa.Column("request_burst", sa.Integer, comment="null: as many as come in a second"),
        sa.Column("queued_rows", sa.BigInteger, comment="accepted and not ended"),
        sa.Column(
            "running_shards",
            sa.Integer,
            comment="tenants.max_running_shards, unless it is disabled",
        ),
        sa.Column("stored_bytes", sa.BigInteger),
        sa.Column("daily_tokens", sa.BigInteger),
        sa.Column("daily_compute_seconds", sa.Double),
        sa.Column("daily_budget", sa.BigInteger, comment=MILLIONTHS),
        sa.Column("monthly_budget", sa.BigInteger, comment=MILLIONTHS),
        comment="a row for tenants with a limit; null columns are no limit",
    )
    _reservations()
    op.create_table(
        "rate_buckets",
        sa.Column("tenant_id", sa.Text, primary_key=True),
        sa.Column(
            "full_at",
            sa.DateTime(timezone=True),
            nullable=False,
            comment="when the bucket will be full again, if nobody calls",
        ),
        prefixes=["UNLOGGED"],
    )
    op.create_index("ix_artifacts_tenant_id", "artifacts", ["tenant_id"])
    _usage()


def downgrade() -> None:
    op.drop_index("ix_artifacts_tenant_id", "artifacts")
    op.drop_index("ix_usage_uncounted", "usage")
    for column in ("counted", "cost", "compute_seconds", "media_seconds", "images"):
        op.drop_column("usage", column)
    for table in ("usage_days", "rate_buckets", "reservations", "tenant_limits"):
        op.drop_table(table)


def _reservations() -> None:
    op.create_table(
        "reservations",
        sa.Column(
            "shard_id",
            sa.BigInteger,
            sa.ForeignKey("shards.id", ondelete="CASCADE"),
            primary_key=True,
            autoincrement=False,
        ),
        sa.Column("tenant_id", sa.Text, sa.ForeignKey("tenants.id"), nullable=False),
        sa.Column("rows", sa.BigInteger, nullable=False),
        sa.Column("tokens", sa.BigInteger, nullable=False),
        sa.Column("cost", sa.BigInteger, nullable=False, comment=MILLIONTHS),
        comment="what accepted work of tenants with limits may consume; counts while its shard"
        " is open",
    )
    op.create_index("ix_reservations_tenant_id", "reservations", ["tenant_id"])


def _usage() -> None:
    op.create_table(
        "usage_days",
        sa.Column("tenant_id", sa.Text, sa.ForeignKey("tenants.id"), nullable=False),
        sa.Column("day", sa.Date, nullable=False, comment="in UTC"),
        sa.Column("endpoint", sa.Text, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        *(_number(name, sa.BigInteger) for name in ("rows", "input_tokens", "output_tokens")),
        _number("images", sa.BigInteger),
        _number("media_seconds", sa.Double),
        _number("compute_seconds", sa.Double),
        _number("cost", sa.BigInteger),
        sa.PrimaryKeyConstraint("tenant_id", "day", "endpoint", "model"),
        comment="sums of the rows of usage that are marked as counted",
    )
    op.create_index("ix_usage_days_day", "usage_days", ["day"])
    op.add_column("usage", _number("images", sa.Integer))
    op.add_column("usage", _number("media_seconds", sa.Double, comment="of sound and video made"))
    op.add_column(
        "usage",
        _number("compute_seconds", sa.Double, comment="its share of its engine's working time"),
    )
    op.add_column("usage", _number("cost", sa.BigInteger, comment=MILLIONTHS))
    op.add_column(
        "usage",
        sa.Column(
            "counted",
            sa.Boolean,
            nullable=False,
            server_default=sa.text("false"),
            comment="whether it is a part of usage_days",
        ),
    )
    op.create_index(
        "ix_usage_uncounted", "usage", ["tenant_id"], postgresql_where=sa.text("NOT counted")
    )


def _number(
    name: str, kind: type[sa.types.TypeEngine[Any]], comment: str | None = None
) -> sa.Column[object]:
    return sa.Column(name, kind, nullable=False, server_default=sa.text("0"), comment=comment)
