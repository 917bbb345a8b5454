"""Webhook endpoints and their deliveries."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

TABLES = (
    "webhook_circuits",
    "webhook_deliveries",
    "job_webhooks",
    "webhook_secrets",
    "webhook_endpoints",
)


def upgrade() -> None:
    _make_events_an_outbox()
    _create_endpoints()
    op.create_table(
        "webhook_secrets",
        sa.Column("tenant_id", sa.Text, sa.ForeignKey("tenants.id"), primary_key=True),
        *_secrets(),
        _moment("created_at"),
        _moment("updated_at"),
    )
    op.create_table(
        "job_webhooks",
        sa.Column(
            "job_id", sa.Text, sa.ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True
        ),
        sa.Column("url", sa.Text, nullable=False),
        sa.Column(
            "events", ARRAY(sa.Text), comment="types it is told of; null: its end, whatever it is"
        ),
    )
    _create_deliveries()
    op.create_table(
        "webhook_circuits",
        sa.Column("key", sa.Text, primary_key=True),
        sa.Column("failures", sa.Integer, nullable=False, server_default=sa.text("0")),
        sa.Column("open_until", sa.DateTime(timezone=True), comment="nothing is sent before"),
        _moment("updated_at"),
    )


def _make_events_an_outbox() -> None:
    # The default of the first statement is that of the rows that are there: nobody asked for them,
    # and none of them is rewritten.
    op.add_column(
        "events",
        sa.Column(
            "announced",
            sa.Boolean,
            nullable=False,
            server_default=sa.text("true"),
            comment="of the end of a job: its webhooks were made",
        ),
    )
    op.alter_column("events", "announced", server_default=sa.text("false"))
    op.create_index(
        "ix_events_unannounced",
        "events",
        ["id"],
        postgresql_where=sa.text(
            "NOT announced AND type ~ '^[a-z_]+\\.(succeeded|completed|failed|cancelled|expired)$'"
        ),
    )


def _create_endpoints() -> None:
    op.create_table(
        "webhook_endpoints",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("tenant_id", sa.Text, sa.ForeignKey("tenants.id"), nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("url", sa.Text, nullable=False),
        sa.Column("event_types", ARRAY(sa.Text), nullable=False),
        *_secrets(),
        _moment("created_at"),
        _moment("updated_at"),
        sa.Column("disabled_at", sa.DateTime(timezone=True)),
        sa.Column("disabled_reason", sa.Text, comment="by_tenant, or gone: it answered 410"),
        sa.Column("deleted_at", sa.DateTime(timezone=True)),
    )
    op.create_index(
        "ix_webhook_endpoints_tenant_id_id",
        "webhook_endpoints",
        ["tenant_id", "id"],
        postgresql_where=sa.text("deleted_at IS NULL"),
    )


def _secrets() -> tuple[sa.Column[object], ...]:
    return (
        sa.Column("secret", sa.Text, nullable=False, comment="as it is: signing needs it"),
        sa.Column("old_secret", sa.Text),
        sa.Column("old_secret_until", sa.DateTime(timezone=True)),
    )


def _create_deliveries() -> None:
    op.create_table(
        "webhook_deliveries",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("tenant_id", sa.Text, sa.ForeignKey("tenants.id"), nullable=False),
        sa.Column(
            "endpoint_id",
            sa.Text,
            sa.ForeignKey("webhook_endpoints.id"),
            comment="null: of the job's own",
        ),
        sa.Column(
            "url", sa.Text, comment="of the job's own; an endpoint's is looked up for each attempt"
        ),
        _text("circuit", "endpoint or origin: what fails together"),
        _text("event_id", "webhook-id, the same on every attempt"),
        _text("event_type"),
        sa.Column("event_at", sa.DateTime(timezone=True), nullable=False),
        _text("about", "the id of what it tells of"),
        sa.Column("test", sa.Boolean, nullable=False, server_default=sa.text("false")),
        *_progress(),
        _moment("created_at"),
        _moment("queued_at"),
        sa.Column("ended_at", sa.DateTime(timezone=True)),
    )
    _index_deliveries()


def _progress() -> tuple[sa.Column[object], ...]:
    return (
        _text("status", "pending, delivered, failed or cancelled"),
        sa.Column(
            "attempt_n",
            sa.Integer,
            nullable=False,
            server_default=sa.text("0"),
            comment="attempts since it was queued",
        ),
        sa.Column(
            "attempts", JSONB, nullable=False, server_default="[]", comment="the latest ones"
        ),
        sa.Column(
            "next_attempt_at",
            sa.DateTime(timezone=True),
            comment="while it is sent: its lease's end",
        ),
        sa.Column("lease", sa.Text, comment="whose attempt is under way"),
        sa.Column("status_code", sa.Integer),
        sa.Column("error_code", sa.Text),
    )


def _text(name: str, comment: str | None = None) -> sa.Column[object]:
    return sa.Column(name, sa.Text, nullable=False, comment=comment)


def _index_deliveries() -> None:
    table = "webhook_deliveries"
    op.create_index("ix_webhook_deliveries_endpoint_id_id", table, ["endpoint_id", "id"])
    op.create_index("ix_webhook_deliveries_tenant_id_id", table, ["tenant_id", "id"])
    op.create_index("ix_webhook_deliveries_about", table, ["about"])
    op.create_index(
        "ix_webhook_deliveries_pending",
        table,
        ["circuit", "next_attempt_at"],
        postgresql_where=sa.text("status = 'pending'"),
    )
    op.create_index(
        "ix_webhook_deliveries_ended_at",
        table,
        ["ended_at"],
        postgresql_where=sa.text("ended_at IS NOT NULL"),
    )


def _moment(name: str) -> sa.Column[object]:
    return sa.Column(
        name,
        sa.DateTime(timezone=True),
        nullable=False,
        server_default=sa.text("clock_timestamp()"),
    )


def downgrade() -> None:
    for table in TABLES:
        op.drop_table(table)
    op.drop_index("ix_events_unannounced", "events")
    op.drop_column("events", "announced")
