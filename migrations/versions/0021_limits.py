"""Budgets that speak up, and a database that knows the bounds that the API has."""

from __future__ import annotations

from collections.abc import Mapping

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None

API, ADMIN, WORKER = ("pressrun_api", "pressrun_admin", "pressrun_worker")

MINE = "CAST((SELECT string_to_array(current_setting('pressrun.tenants', true), ',')) AS text[])"

LIMITS = (
    "requests_per_second, request_burst, queued_rows, running_shards, stored_bytes, daily_tokens,"
    " daily_compute_seconds, daily_budget, monthly_budget"
)

CHANGED_BY_TENANTS = {
    "deletions": "",
    "files": "expires_at, deleted_at",
    "idempotency_keys": "claim, claimed_at, fingerprint, job_id, object_id, created_at",
    "jobs": "state, stage, spec, result, metadata, version, detail, request_hash, shards_open,"
    " rows_completed, rows_failed, input_tokens, output_tokens, error_code, error_message,"
    " stop_reason, cancel_requested_at, paused_at, finalizing_at, ended_at, cleaned_at, deleted_at",
    "model_aliases": "model, version, standing, moved_at, gate_job_id",
    "monitor_windows": "texts",
    "monitors": "state, error_code, error_message, next_look_at, updated_at",
    "rate_buckets": "full_at",
    "reservations": "",
    "schedules": "state, paused_reason, failures, run_asked, next_run_at, updated_at",
    "shards": "state, blocked_n, ready_seq, rows_completed, rows_failed, ended_at",
    "steps": "ended",
    "tenant_limits": "tenant_id",
    "uploads": "join_id, join_sha256, cancelled_at, ended_at",
    "webhook_deliveries": "status, attempt_n, next_attempt_at, lease, status_code, error_code,"
    " queued_at, ended_at",
    "webhook_endpoints": "name, url, event_types, secret, old_secret, old_secret_until,"
    " disabled_at, disabled_reason, updated_at, deleted_at",
    "webhook_secrets": "secret, old_secret, old_secret_until, updated_at",
}
"""Of tables that requests of tenants could change any column of, those that they do change. To hold
a row, Postgres asks for one: ``tenant_limits.tenant_id`` is never changed."""
CHANGED_BY_ADMINISTRATORS = {
    "api_keys": "revoked_at",
    "deletions": "",
    "retention_policies": "days, updated_at",
    "tenant_limits": f"{LIMITS}, settled",
    "tenants": "name, weight, disabled_at, max_running_shards",
}


def upgrade() -> None:
    op.execute("UPDATE tenants SET weight = 0.001 WHERE weight < 0.001")
    _bound("weight >= 0.001 AND weight <= 1000")
    op.add_column(
        "tenant_limits",
        sa.Column(
            "settled",
            sa.Boolean,
            nullable=False,
            server_default=sa.text("false"),
            comment="whether what was accepted before these limits is counted",
        ),
    )
    op.create_index(
        "ix_tenant_limits_unsettled",
        "tenant_limits",
        ["tenant_id"],
        postgresql_where=sa.text("NOT settled"),
    )
    _create_notices()
    _narrow(API, CHANGED_BY_TENANTS)
    _narrow(ADMIN, CHANGED_BY_ADMINISTRATORS)
    op.execute(f"REVOKE DELETE ON reservations FROM {API}")


def _create_notices() -> None:
    op.create_table(
        "limit_notices",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("tenant_id", sa.Text, sa.ForeignKey("tenants.id"), nullable=False),
        sa.Column("limit_name", sa.Text, nullable=False, comment="a column of tenant_limits"),
        sa.Column(
            "period_start", sa.Date, nullable=False, comment="the day, or the month's first, of UTC"
        ),
        sa.Column("percent", sa.Integer, nullable=False, comment="of the limit that were reached"),
        sa.Column("allowed", sa.Numeric, nullable=False, comment="the limit, at that moment"),
        sa.Column("consumed", sa.Numeric, nullable=False, comment="at that moment"),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            nullable=False,
            server_default=sa.text("clock_timestamp()"),
        ),
        sa.UniqueConstraint(
            "tenant_id",
            "limit_name",
            "period_start",
            "percent",
            name="uq_limit_notices_tenant_id_limit_name_period_start_percent",
        ),
        comment="each threshold of a limit that a tenant has reached: once in a day or month",
    )
    op.execute("ALTER TABLE limit_notices ENABLE ROW LEVEL SECURITY")
    op.execute("ALTER TABLE limit_notices FORCE ROW LEVEL SECURITY")
    everything = "USING (true) WITH CHECK (true)"
    op.execute(f"CREATE POLICY workers ON limit_notices TO {WORKER} {everything}")
    op.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON limit_notices TO {WORKER}")
    mine = f"USING (tenant_id = ANY ({MINE}))"
    op.execute(f"CREATE POLICY tenants ON limit_notices TO {API} {mine}")
    op.execute(f"GRANT SELECT ON limit_notices TO {API}")


def _narrow(role: str, columns_of: Mapping[str, str]) -> None:
    """From the right to update any column to that of these."""
    for table, columns in columns_of.items():
        op.execute(f"REVOKE UPDATE ON {table} FROM {role}")
        if columns:
            op.execute(f"GRANT UPDATE ({columns}) ON {table} TO {role}")


def _bound(condition: str) -> None:
    op.drop_constraint(op.f("ck_tenants_weight"), "tenants")
    op.create_check_constraint(op.f("ck_tenants_weight"), "tenants", condition)


def downgrade() -> None:
    op.execute(f"GRANT DELETE ON reservations TO {API}")
    for role, columns_of in ((API, CHANGED_BY_TENANTS), (ADMIN, CHANGED_BY_ADMINISTRATORS)):
        for table, columns in columns_of.items():
            if columns:
                op.execute(f"REVOKE UPDATE ({columns}) ON {table} FROM {role}")
            op.execute(f"GRANT UPDATE ON {table} TO {role}")
    op.drop_table("limit_notices")
    op.drop_index("ix_tenant_limits_unsettled", "tenant_limits")
    op.drop_column("tenant_limits", "settled")
    _bound("weight > 0 AND weight <= 1000")
