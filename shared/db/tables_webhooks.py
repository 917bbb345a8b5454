"""Tables of webhooks: who is told, of which job, what was sent, and who does not answer."""

from __future__ import annotations

from sqlalchemy import (
    Boolean,
    Column,
    DateTime,
    ForeignKey,
    Index,
    Integer,
    Table,
    Text,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from shared.db.columns import count, metadata, moment, now

webhook_endpoints = Table(
    "webhook_endpoints",
    metadata,
    Column("id", Text, primary_key=True),
    Column("tenant_id", ForeignKey("tenants.id"), nullable=False),
    Column("name", Text, nullable=False),
    Column("url", Text, nullable=False),
    Column("event_types", ARRAY(Text), nullable=False),
    Column("secret", Text, nullable=False, comment="as it is: signing needs it"),
    Column("old_secret", Text),
    Column("old_secret_until", DateTime(timezone=True)),
    now(),
    now("updated_at"),
    moment("disabled_at"),
    Column("disabled_reason", Text, comment="by_tenant, or gone: it answered 410"),
    moment("deleted_at"),
    Index(
        "ix_webhook_endpoints_tenant_id_id",
        "tenant_id",
        "id",
        postgresql_where=text("deleted_at IS NULL"),
    ),
)

webhook_secrets = Table(
    "webhook_secrets",
    metadata,
    Column("tenant_id", ForeignKey("tenants.id"), primary_key=True),
    Column("secret", Text, nullable=False, comment="as it is: signing needs it"),
    Column("old_secret", Text),
    Column("old_secret_until", DateTime(timezone=True)),
    now(),
    now("updated_at"),
)
"""What signs the webhooks of single jobs, which belong to no endpoint."""

job_webhooks = Table(
    "job_webhooks",
    metadata,
    Column("job_id", ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    Column("url", Text, nullable=False),
    Column("events", ARRAY(Text), comment="types it is told of; null: its end, whatever it is"),
)
"""The URL of a job's own. Few jobs have one, so it is no column of theirs."""

webhook_deliveries = Table(
    "webhook_deliveries",
    metadata,
    Column("id", Text, primary_key=True),
    Column("tenant_id", ForeignKey("tenants.id"), nullable=False),
    Column("endpoint_id", ForeignKey("webhook_endpoints.id"), comment="null: of the job's own"),
    Column("url", Text, comment="of the job's own; an endpoint's is looked up for each attempt"),
    Column("circuit", Text, nullable=False, comment="endpoint or origin: what fails together"),
    Column("event_id", Text, nullable=False, comment="webhook-id, the same on every attempt"),
    Column("event_type", Text, nullable=False),
    Column("event_at", DateTime(timezone=True), nullable=False),
    Column("about", Text, nullable=False, comment="the id of what it tells of"),
    Column("test", Boolean, nullable=False, server_default=text("false")),
    Column("status", Text, nullable=False, comment="pending, delivered, failed or cancelled"),
    Column(
        "attempt_n",
        Integer,
        nullable=False,
        server_default=text("0"),
        comment="attempts since it was queued",
    ),
    Column("attempts", JSONB, nullable=False, server_default="[]", comment="the latest ones"),
    Column("next_attempt_at", DateTime(timezone=True), comment="while it is sent: its lease's end"),
    Column("lease", Text, comment="whose attempt is under way"),
    Column("status_code", Integer),
    Column("error_code", Text),
    now(),
    now("queued_at"),
    moment("ended_at"),
    Index("ix_webhook_deliveries_endpoint_id_id", "endpoint_id", "id"),
    Index("ix_webhook_deliveries_tenant_id_id", "tenant_id", "id"),
    Index("ix_webhook_deliveries_about", "about"),
    Index(
        "ix_webhook_deliveries_pending",
        "circuit",
        "next_attempt_at",
        postgresql_where=text("status = 'pending'"),
    ),
    Index(
        "ix_webhook_deliveries_ended_at",
        "ended_at",
        postgresql_where=text("ended_at IS NOT NULL"),
    ),
)

webhook_circuits = Table(
    "webhook_circuits",
    metadata,
    Column("key", Text, primary_key=True),
    count("failures"),
    Column("open_until", DateTime(timezone=True), comment="nothing is sent before"),
    now("updated_at"),
)
"""Receivers that have failed since they last succeeded; healthy ones have no row."""
