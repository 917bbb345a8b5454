"""Tables of monitors: what is watched, texts that wait to be judged, and counts by window."""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    DateTime,
    Double,
    ForeignKey,
    Identity,
    Index,
    Integer,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from shared.db.columns import count, metadata, moment, now

monitors = Table(
    "monitors",
    metadata,
    Column("id", Text, primary_key=True),
    Column("tenant_id", ForeignKey("tenants.id"), nullable=False),
    Column("name", Text, nullable=False),
    Column("model", Text, nullable=False, comment="as it was named: an alias stays one"),
    Column("label", Text, nullable=False, comment="whose share is watched"),
    Column("share_limit", Double, nullable=False),
    Column("minimum", Integer, nullable=False, comment="judged texts of a window that may alert"),
    Column("window_seconds", Integer, nullable=False),
    Column("source", JSON, comment="null: texts are posted"),
    Column("text_column", Text, comment="of the source"),
    Column("webhook", JSON, comment="told of alerts beside the tenant's endpoints"),
    Column("state", Text, nullable=False, server_default="active", comment="active or paused"),
    Column("epoch", Integer, nullable=False, server_default=text("0"), comment="of its attempts"),
    Column(
        "readers_out",
        Integer,
        nullable=False,
        server_default=text("0"),
        comment="who began to work on it since one came back",
    ),
    Column("lease_until", DateTime(timezone=True), comment="while somebody works on it"),
    Column("next_look_at", DateTime(timezone=True), nullable=False),
    Column("next_read_at", DateTime(timezone=True), comment="of the source"),
    Column("etag", Text),
    Column("last_modified", Text),
    Column("error_code", Text, comment="what went wrong last; null: nothing since"),
    Column("error_message", Text),
    now(),
    now("updated_at"),
    Index("ix_monitors_tenant_id_id", "tenant_id", "id"),
    Index("ix_monitors_next_look_at", "next_look_at"),
)

monitor_windows = Table(
    "monitor_windows",
    metadata,
    Column("id", Text, primary_key=True),
    Column("monitor_id", ForeignKey("monitors.id", ondelete="CASCADE"), nullable=False),
    Column("tenant_id", ForeignKey("tenants.id"), nullable=False),
    Column("starts_at", DateTime(timezone=True), nullable=False),
    Column("ends_at", DateTime(timezone=True), nullable=False),
    Column("texts", Integer, nullable=False, server_default=text("0"), comment="that came"),
    count("failed"),
    Column("labels", JSONB, nullable=False, server_default="{}", comment="judged texts, by label"),
    moment("alerted_at"),
    UniqueConstraint("monitor_id", "starts_at"),
    Index("ix_monitor_windows_ends_at", "ends_at"),
    Index("ix_monitor_windows_tenant_id", "tenant_id"),
)

monitor_batches = Table(
    "monitor_batches",
    metadata,
    Column("job_id", ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    Column("tenant_id", ForeignKey("tenants.id"), nullable=False),
    Column("monitor_id", ForeignKey("monitors.id", ondelete="CASCADE"), nullable=False),
    now(),
    Index("ix_monitor_batches_monitor_id", "monitor_id"),
)
"""The batch that judges texts of a monitor now; its row goes when its answers were counted."""

monitor_texts = Table(
    "monitor_texts",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("monitor_id", ForeignKey("monitors.id", ondelete="CASCADE"), nullable=False),
    Column("tenant_id", ForeignKey("tenants.id"), nullable=False),
    Column("window_id", ForeignKey("monitor_windows.id", ondelete="CASCADE"), nullable=False),
    Column("body", Text, nullable=False, comment="JSON, since Postgres takes no NUL"),
    Column("job_id", Text, comment="the batch that judges it; null: it waits"),
    now(),
    Index("ix_monitor_texts_monitor_id_id", "monitor_id", "id"),
    Index("ix_monitor_texts_window_id", "window_id"),
    Index("ix_monitor_texts_tenant_id", "tenant_id"),
    Index("ix_monitor_texts_created_at", "created_at"),
)
"""Texts that are still to be judged; each goes when it was counted."""
