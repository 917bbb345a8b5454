"""Readers of schedules and monitors that were lost are counted, files that schedules name are in
use, and no object is in the store that no row knows."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None

API, WORKER = ("pressrun_api", "pressrun_worker")

MINE = "CAST((SELECT string_to_array(current_setting('pressrun.tenants', true), ',')) AS text[])"

WATCHED = ("schedules", "monitors")

# Whatever looks like a file's id in a template is taken for one: a file too many is kept.
NAMED = r"""
UPDATE schedules s SET file_ids = ARRAY(
       SELECT DISTINCT found[1]
         FROM regexp_matches(CAST(s.spec AS text), '(file-[0-9a-z]{26})', 'g') AS found)
"""


def upgrade() -> None:
    for table in WATCHED:
        op.add_column(
            table,
            sa.Column(
                "readers_out",
                sa.Integer,
                nullable=False,
                server_default=sa.text("0"),
                comment="who began to work on it since one came back",
            ),
        )
        op.execute(f"GRANT UPDATE (readers_out) ON {table} TO {API}")
    op.add_column(
        "schedules",
        sa.Column(
            "file_ids",
            ARRAY(sa.Text),
            nullable=False,
            server_default="{}",
            comment="that its template names: in use while it is live",
        ),
    )
    op.execute(NAMED)
    _say_why("by_tenant or failures", "by_tenant, failures or readers_lost")
    _create_begun()


def _say_why(before: str, after: str) -> None:
    op.alter_column(
        "schedules",
        "paused_reason",
        existing_type=sa.Text(),
        existing_nullable=True,
        existing_comment=before,
        comment=after,
    )


def _create_begun() -> None:
    op.create_table(
        "begun_objects",
        sa.Column("key", sa.Text, primary_key=True),
        sa.Column("tenant_id", sa.Text, sa.ForeignKey("tenants.id"), nullable=False),
        sa.Column(
            "begun_at",
            sa.DateTime(timezone=True),
            nullable=False,
            server_default=sa.text("clock_timestamp()"),
        ),
    )
    op.create_index("ix_begun_objects_begun_at", "begun_objects", ["begun_at"])
    op.create_index("ix_begun_objects_tenant_id", "begun_objects", ["tenant_id"])
    op.execute("ALTER TABLE begun_objects ENABLE ROW LEVEL SECURITY")
    op.execute("ALTER TABLE begun_objects FORCE ROW LEVEL SECURITY")
    op.execute(f"CREATE POLICY workers ON begun_objects TO {WORKER} USING (true) WITH CHECK (true)")
    op.execute(f"CREATE POLICY tenants ON begun_objects TO {API} USING (tenant_id = ANY ({MINE}))")
    op.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON begun_objects TO {WORKER}")
    op.execute(f"GRANT SELECT, INSERT, UPDATE (begun_at), DELETE ON begun_objects TO {API}")


def downgrade() -> None:
    op.drop_table("begun_objects")
    _say_why("by_tenant, failures or readers_lost", "by_tenant or failures")
    op.drop_column("schedules", "file_ids")
    for table in WATCHED:
        op.drop_column(table, "readers_out")
