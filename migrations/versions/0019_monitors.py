"""Texts that are watched."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None


def upgrade() -> None:
    _create_monitors()
    _create_windows()
    _create_work()


def _create_monitors() -> None:
    op.create_table(
        "monitors",
        sa.Column("id", sa.Text, primary_key=True),
        _tenant(),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("model", sa.Text, nullable=False, comment="as it was named: an alias stays one"),
        sa.Column("label", sa.Text, nullable=False, comment="whose share is watched"),
        sa.Column("share_limit", sa.Double, nullable=False),
        sa.Column(
            "minimum",
            sa.Integer,
            nullable=False,
            comment="judged texts of a window that may alert",
        ),
        sa.Column("window_seconds", sa.Integer, nullable=False),
        sa.Column("source", sa.JSON, comment="null: texts are posted"),
        sa.Column("text_column", sa.Text, comment="of the source"),
        sa.Column("webhook", sa.JSON, comment="told of alerts beside the tenant's endpoints"),
        sa.Column(
            "state", sa.Text, nullable=False, server_default="active", comment="active or paused"
        ),
        sa.Column(
            "epoch",
            sa.Integer,
            nullable=False,
            server_default=sa.text("0"),
            comment="of its attempts",
        ),
        sa.Column("lease_until", sa.DateTime(timezone=True), comment="while somebody works on it"),
        sa.Column("next_look_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("next_read_at", sa.DateTime(timezone=True), comment="of the source"),
        sa.Column("etag", sa.Text),
        sa.Column("last_modified", sa.Text),
        sa.Column("error_code", sa.Text, comment="what went wrong last; null: nothing since"),
        sa.Column("error_message", sa.Text),
        _moment("created_at"),
        _moment("updated_at"),
    )
    op.create_index("ix_monitors_tenant_id_id", "monitors", ["tenant_id", "id"])
    op.create_index("ix_monitors_next_look_at", "monitors", ["next_look_at"])


def _create_windows() -> None:
    op.create_table(
        "monitor_windows",
        sa.Column("id", sa.Text, primary_key=True),
        _monitor(),
        _tenant(),
        sa.Column("starts_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ends_at", sa.DateTime(timezone=True), nullable=False),
        _count("texts", "that came"),
        _count("failed"),
        sa.Column(
            "labels",
            JSONB,
            nullable=False,
            server_default="{}",
            comment="judged texts, by label",
        ),
        sa.Column("alerted_at", sa.DateTime(timezone=True)),
        sa.UniqueConstraint("monitor_id", "starts_at"),
    )
    op.create_index("ix_monitor_windows_ends_at", "monitor_windows", ["ends_at"])
    op.create_index("ix_monitor_windows_tenant_id", "monitor_windows", ["tenant_id"])


def _create_work() -> None:
    op.create_table(
        "monitor_batches",
        sa.Column(
            "job_id", sa.Text, sa.ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True
        ),
        _tenant(),
        _monitor(),
        _moment("created_at"),
    )
    op.create_index("ix_monitor_batches_monitor_id", "monitor_batches", ["monitor_id"])
    op.create_table(
        "monitor_texts",
        sa.Column("id", sa.BigInteger, sa.Identity(), primary_key=True),
        _monitor(),
        _tenant(),
        sa.Column(
            "window_id",
            sa.Text,
            sa.ForeignKey("monitor_windows.id", ondelete="CASCADE"),
            nullable=False,
        ),
        sa.Column("body", sa.Text, nullable=False, comment="JSON, since Postgres takes no NUL"),
        sa.Column("job_id", sa.Text, comment="the batch that judges it; null: it waits"),
        _moment("created_at"),
    )
    op.create_index("ix_monitor_texts_monitor_id_id", "monitor_texts", ["monitor_id", "id"])
    op.create_index("ix_monitor_texts_window_id", "monitor_texts", ["window_id"])
    op.create_index("ix_monitor_texts_tenant_id", "monitor_texts", ["tenant_id"])
    op.create_index("ix_monitor_texts_created_at", "monitor_texts", ["created_at"])


def downgrade() -> None:
    op.drop_table("monitor_texts")
    op.drop_table("monitor_batches")
    op.drop_table("monitor_windows")
    op.drop_table("monitors")


def _tenant() -> sa.Column[str]:
    return sa.Column("tenant_id", sa.Text, sa.ForeignKey("tenants.id"), nullable=False)


def _monitor() -> sa.Column[str]:
    key = sa.ForeignKey("monitors.id", ondelete="CASCADE")
    return sa.Column("monitor_id", sa.Text, key, nullable=False)


def _count(name: str, comment: str | None = None) -> sa.Column[int]:
    zero = sa.text("0")
    return sa.Column(name, sa.Integer, nullable=False, server_default=zero, comment=comment)


def _moment(name: str) -> sa.Column[object]:
    return sa.Column(
        name,
        sa.DateTime(timezone=True),
        nullable=False,
        server_default=sa.text("clock_timestamp()"),
    )
