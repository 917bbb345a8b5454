"""Tables of schedules: what comes again, how each run went, and which rows were seen before."""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    DateTime,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    PrimaryKeyConstraint,
    Table,
    Text,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY

from shared.db.columns import count, metadata, moment, now

schedules = Table(
    "schedules",
    metadata,
    Column("id", Text, primary_key=True),
    Column("tenant_id", ForeignKey("tenants.id"), nullable=False),
    Column("name", Text, nullable=False),
    Column("spec", JSON, nullable=False),
    Column("webhook", JSON, comment="whom the end of each production is told to"),
    Column("state", Text, nullable=False, server_default="active", comment="active or paused"),
    Column("paused_reason", Text, comment="by_tenant, failures or readers_lost"),
    Column("anchor_at", DateTime(timezone=True), nullable=False, comment="it was due then, once"),
    Column("next_run_at", DateTime(timezone=True), nullable=False),
    Column(
        "run_asked",
        Boolean,
        nullable=False,
        server_default=text("false"),
        comment="to run once, now",
    ),
    count("failures"),
    Column(
        "readers_out",
        Integer,
        nullable=False,
        server_default=text("0"),
        comment="who began to work on it since one came back",
    ),
    Column(
        "file_ids",
        ARRAY(Text),
        nullable=False,
        server_default="{}",
        comment="that its template names: in use while it is live",
    ),
    Column("etag", Text, comment="of what was read last"),
    Column("last_modified", Text),
    now(),
    now("updated_at"),
    Index("ix_schedules_tenant_id_id", "tenant_id", "id"),
    Index("ix_schedules_due", "next_run_at", postgresql_where=text("state = 'active'")),
    Index("ix_schedules_asked", "id", postgresql_where=text("run_asked")),
)

schedule_runs = Table(
    "schedule_runs",
    metadata,
    Column("id", Text, primary_key=True),
    Column("schedule_id", ForeignKey("schedules.id", ondelete="CASCADE"), nullable=False),
    Column("tenant_id", ForeignKey("tenants.id"), nullable=False),
    Column(
        "state",
        Text,
        nullable=False,
        comment="reading or producing; succeeded, unchanged, failed or cancelled",
    ),
    Column("manual", Boolean, nullable=False, comment="asked for, and not due"),
    Column("epoch", Integer, nullable=False, comment="the attempt to read the source"),
    Column("lease_until", DateTime(timezone=True), comment="while it is read"),
    count("rows_found"),
    count("rows_new"),
    Column("rows_left", Integer, nullable=False, server_default=text("0"), comment="for the next"),
    Column("rows_bad", Integer, nullable=False, server_default=text("0"), comment="left out"),
    Column("bad", JSON, nullable=False, server_default="[]", comment="the first of them, and why"),
    count("lines_kept"),
    count("lines_failed"),
    Column("job_id", ForeignKey("jobs.id", ondelete="SET NULL"), comment="its production"),
    Column("error_code", Text),
    Column("error_message", Text),
    now(),
    moment("ended_at"),
    Index("ix_schedule_runs_schedule_id_id", "schedule_id", "id"),
    Index("ix_schedule_runs_job_id", "job_id", postgresql_where=text("job_id IS NOT NULL")),
    Index(
        "uq_schedule_runs_open",
        "schedule_id",
        unique=True,
        postgresql_where=text("ended_at IS NULL"),
    ),
)
"""At most one of a schedule is open: runs never overlap."""

feed_rows = Table(
    "feed_rows",
    metadata,
    Column("owner_id", Text, nullable=False, comment="a schedule or a monitor"),
    Column("tenant_id", ForeignKey("tenants.id"), nullable=False),
    Column("row_hash", LargeBinary, nullable=False, comment="of its key columns"),
    Column("run_id", Text, comment="that took it; of a schedule"),
    now("last_seen_at"),
    PrimaryKeyConstraint("owner_id", "row_hash"),
    Index("ix_feed_rows_owner_id_last_seen_at", "owner_id", "last_seen_at"),
    Index("ix_feed_rows_tenant_id", "tenant_id"),
)
"""Rows of sources that were seen before."""
