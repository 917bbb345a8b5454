"""Productions that come again."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None


def upgrade() -> None:
    _create_schedules()
    _create_runs()
    op.create_table(
        "feed_rows",
        sa.Column("owner_id", sa.Text, nullable=False, comment="a schedule or a monitor"),
        _tenant(),
        sa.Column("row_hash", sa.LargeBinary, nullable=False, comment="of its key columns"),
        sa.Column("run_id", sa.Text, comment="that took it; of a schedule"),
        _moment("last_seen_at"),
        sa.PrimaryKeyConstraint("owner_id", "row_hash"),
    )
    op.create_index("ix_feed_rows_owner_id_last_seen_at", "feed_rows", ["owner_id", "last_seen_at"])
    op.create_index("ix_feed_rows_tenant_id", "feed_rows", ["tenant_id"])


def _create_schedules() -> None:
    op.create_table(
        "schedules",
        sa.Column("id", sa.Text, primary_key=True),
        _tenant(),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("spec", sa.JSON, nullable=False),
        sa.Column("webhook", sa.JSON, comment="whom the end of each production is told to"),
        sa.Column(
            "state", sa.Text, nullable=False, server_default="active", comment="active or paused"
        ),
        sa.Column("paused_reason", sa.Text, comment="by_tenant or failures"),
        sa.Column(
            "anchor_at",
            sa.DateTime(timezone=True),
            nullable=False,
            comment="it was due then, once",
        ),
        sa.Column("next_run_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column(
            "run_asked",
            sa.Boolean,
            nullable=False,
            server_default=sa.text("false"),
            comment="to run once, now",
        ),
        _count("failures"),
        sa.Column("etag", sa.Text, comment="of what was read last"),
        sa.Column("last_modified", sa.Text),
        _moment("created_at"),
        _moment("updated_at"),
    )
    op.create_index("ix_schedules_tenant_id_id", "schedules", ["tenant_id", "id"])
    active = sa.text("state = 'active'")
    op.create_index("ix_schedules_due", "schedules", ["next_run_at"], postgresql_where=active)
    op.create_index(
        "ix_schedules_asked", "schedules", ["id"], postgresql_where=sa.text("run_asked")
    )


def _create_runs() -> None:
    op.create_table(
        "schedule_runs",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column(
            "schedule_id",
            sa.Text,
            sa.ForeignKey("schedules.id", ondelete="CASCADE"),
            nullable=False,
        ),
        _tenant(),
        sa.Column(
            "state",
            sa.Text,
            nullable=False,
            comment="reading or producing; succeeded, unchanged, failed or cancelled",
        ),
        sa.Column("manual", sa.Boolean, nullable=False, comment="asked for, and not due"),
        sa.Column("epoch", sa.Integer, nullable=False, comment="the attempt to read the source"),
        sa.Column("lease_until", sa.DateTime(timezone=True), comment="while it is read"),
        _count("rows_found"),
        _count("rows_new"),
        _count("rows_left", "for the next"),
        _count("rows_bad", "left out"),
        sa.Column(
            "bad",
            sa.JSON,
            nullable=False,
            server_default="[]",
            comment="the first of them, and why",
        ),
        _count("lines_kept"),
        _count("lines_failed"),
        sa.Column(
            "job_id",
            sa.Text,
            sa.ForeignKey("jobs.id", ondelete="SET NULL"),
            comment="its production",
        ),
        sa.Column("error_code", sa.Text),
        sa.Column("error_message", sa.Text),
        _moment("created_at"),
        sa.Column("ended_at", sa.DateTime(timezone=True)),
    )
    op.create_index("ix_schedule_runs_schedule_id_id", "schedule_runs", ["schedule_id", "id"])
    op.create_index(
        "ix_schedule_runs_job_id",
        "schedule_runs",
        ["job_id"],
        postgresql_where=sa.text("job_id IS NOT NULL"),
    )
    op.create_index(
        "uq_schedule_runs_open",
        "schedule_runs",
        ["schedule_id"],
        unique=True,
        postgresql_where=sa.text("ended_at IS NULL"),
    )


def downgrade() -> None:
    op.drop_table("feed_rows")
    op.drop_table("schedule_runs")
    op.drop_table("schedules")


def _tenant() -> sa.Column[str]:
    return sa.Column("tenant_id", sa.Text, sa.ForeignKey("tenants.id"), nullable=False)


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
