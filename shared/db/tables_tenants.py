"""What tenants may have, what is set aside for work of theirs, and what they have consumed."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Date,
    DateTime,
    Double,
    ForeignKey,
    Index,
    Integer,
    Numeric,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    text,
)

from shared.db.columns import metadata, now, total

tenant_limits = Table(
    "tenant_limits",
    metadata,
    Column("tenant_id", ForeignKey("tenants.id"), primary_key=True),
    Column("requests_per_second", Double),
    Column("request_burst", Integer, comment="null: as many as come in a second"),
    Column("queued_rows", BigInteger, comment="accepted and not ended"),
    Column("running_shards", Integer, comment="tenants.max_running_shards, unless it is disabled"),
    Column("stored_bytes", BigInteger),
    Column("daily_tokens", BigInteger),
    Column("daily_compute_seconds", Double),
    Column("daily_budget", BigInteger, comment="millionths of the prices' unit"),
    Column("monthly_budget", BigInteger, comment="millionths of the prices' unit"),
    Column(
        "settled",
        Boolean,
        nullable=False,
        server_default=text("false"),
        comment="whether what was accepted before these limits is counted",
    ),
    Index("ix_tenant_limits_unsettled", "tenant_id", postgresql_where=text("NOT settled")),
    comment="a row for tenants with a limit; null columns are no limit",
)

reservations = Table(
    "reservations",
    metadata,
    Column("shard_id", ForeignKey("shards.id", ondelete="CASCADE"), primary_key=True),
    Column("tenant_id", ForeignKey("tenants.id"), nullable=False, index=True),
    Column("rows", BigInteger, nullable=False),
    Column("tokens", BigInteger, nullable=False),
    Column("cost", BigInteger, nullable=False, comment="millionths of the prices' unit"),
    comment="what accepted work of tenants with limits may consume; counts while its shard is open",
)

limit_notices = Table(
    "limit_notices",
    metadata,
    Column("id", Text, primary_key=True),
    Column("tenant_id", ForeignKey("tenants.id"), nullable=False),
    Column("limit_name", Text, nullable=False, comment="a column of tenant_limits"),
    Column("period_start", Date, nullable=False, comment="the day, or the month's first, of UTC"),
    Column("percent", Integer, nullable=False, comment="of the limit that were reached"),
    Column("allowed", Numeric, nullable=False, comment="the limit, at that moment"),
    Column("consumed", Numeric, nullable=False, comment="at that moment"),
    now(),
    UniqueConstraint("tenant_id", "limit_name", "period_start", "percent"),
    comment="each threshold of a limit that a tenant has reached: once in a day or month",
)

rate_buckets = Table(
    "rate_buckets",
    metadata,
    Column("tenant_id", Text, primary_key=True),
    Column(
        "full_at",
        DateTime(timezone=True),
        nullable=False,
        comment="when the bucket will be full again, if nobody calls",
    ),
    prefixes=["UNLOGGED"],
)

usage_days = Table(
    "usage_days",
    metadata,
    Column("tenant_id", ForeignKey("tenants.id"), nullable=False),
    Column("day", Date, nullable=False, comment="in UTC"),
    Column("endpoint", Text, nullable=False),
    Column("model", Text, nullable=False),
    total("rows"),
    total("input_tokens"),
    total("output_tokens"),
    total("images"),
    Column("media_seconds", Double, nullable=False, server_default="0"),
    Column("compute_seconds", Double, nullable=False, server_default="0"),
    total("cost"),
    PrimaryKeyConstraint("tenant_id", "day", "endpoint", "model"),
    Index("ix_usage_days_day", "day"),
    comment="sums of the rows of usage that are marked as counted",
)
