"""How long tenants keep what they have; what is left of it; proof of what was deleted."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

OPEN = "state IN ('queued', 'running')"
TEXT = "'/v1/chat/completions', '/v1/completions', '/v1/embeddings'"
NO_FILES = f"{TEXT}, '/v1/classifications', '/v1/responses', '/v1/moderations'"
TABLES = (
    "deletion_objects",
    "deletions",
    "archived_jobs",
    "retention_marks",
    "retention_policies",
)
FILES = ("input_file_id", "validation_file_id", "output_file_id", "error_file_id")


def upgrade() -> None:
    _create_policies()
    _create_archive()
    _create_deletions()
    _index_uncleaned(f"(kind NOT IN ('generate', 'response') OR endpoint NOT IN ({NO_FILES}))")
    _index_what_goes()


def _create_policies() -> None:
    op.create_table(
        "retention_policies",
        sa.Column("tenant_id", sa.Text, sa.ForeignKey("tenants.id"), primary_key=True),
        sa.Column(
            "days",
            JSONB,
            nullable=False,
            comment="by what is kept; null: for ever; left out: as the settings say",
        ),
        _moment("updated_at"),
    )
    op.create_table(
        "retention_marks",
        sa.Column("tenant_id", sa.Text, sa.ForeignKey("tenants.id"), nullable=False),
        sa.Column("what", sa.Text, nullable=False, comment="outputs or events"),
        sa.Column(
            "until",
            sa.DateTime(timezone=True),
            nullable=False,
            comment="those of jobs that ended by then are gone",
        ),
        sa.PrimaryKeyConstraint("tenant_id", "what"),
    )


def _create_archive() -> None:
    op.create_table(
        "archived_jobs",
        sa.Column("tenant_id", sa.Text, sa.ForeignKey("tenants.id"), nullable=False),
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False, comment="in which it ended"),
        sa.Column("endpoint", sa.Text, nullable=False),
        sa.Column("model", sa.Text),
        sa.Column("client_id", sa.Text),
        sa.Column("error_code", sa.Text),
        sa.Column("rows_total", sa.Integer, nullable=False),
        sa.Column("rows_completed", sa.Integer, nullable=False),
        sa.Column("rows_failed", sa.Integer, nullable=False),
        sa.Column("input_tokens", sa.BigInteger, nullable=False),
        sa.Column("output_tokens", sa.BigInteger, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True)),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=False),
        _moment("archived_at"),
        sa.PrimaryKeyConstraint("tenant_id", "id"),
    )
    op.create_index(
        "ix_archived_jobs_tenant_id_ended_at", "archived_jobs", ["tenant_id", "ended_at", "id"]
    )


def _create_deletions() -> None:
    op.create_table(
        "deletions",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("tenant_id", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False, comment="job, file, artifact, model or tenant"),
        sa.Column("target", sa.Text, nullable=False, comment="the id of what was to be deleted"),
        sa.Column(
            "jobs", ARRAY(sa.Text), nullable=False, server_default="{}", comment="that go with it"
        ),
        sa.Column(
            "keys",
            ARRAY(sa.Text),
            nullable=False,
            server_default="{}",
            comment="objects still to remove",
        ),
        sa.Column("rows", JSONB, nullable=False, server_default="{}", comment="removed, by table"),
        sa.Column("usage", JSONB, comment="of an erased tenant: what it had consumed in all"),
        sa.Column("objects", sa.BigInteger, comment="that were removed, once complete"),
        sa.Column(
            "keys_sha256", sa.Text, comment="of the sorted hashes of their keys, once complete"
        ),
        _moment("created_at"),
        _moment("settles_at"),
        _moment("due_at"),
        sa.Column("completed_at", sa.DateTime(timezone=True)),
    )
    op.create_index("ix_deletions_tenant_id_id", "deletions", ["tenant_id", "id"])
    pending = sa.text("completed_at IS NULL")
    op.create_index("ix_deletions_pending", "deletions", ["due_at"], postgresql_where=pending)
    op.create_index(
        "uq_deletions_target", "deletions", ["target", "kind"], unique=True,
        postgresql_where=pending,
    )  # fmt: skip
    op.create_table(
        "deletion_objects",
        sa.Column("deletion_id", sa.Text, sa.ForeignKey("deletions.id"), nullable=False),
        sa.Column("tenant_id", sa.Text, nullable=False),
        sa.Column("key_sha256", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("deletion_id", "key_sha256"),
    )


def _index_uncleaned(which: str) -> None:
    op.drop_index("ix_jobs_uncleaned", "jobs")
    op.create_index(
        "ix_jobs_uncleaned",
        "jobs",
        ["ended_at"],
        postgresql_where=sa.text(f"{which} AND cleaned_at IS NULL"),
    )


# None of these has an entry for a call of text that was just accepted, unless it names a tuned
# model.
def _index_what_goes() -> None:
    for name, columns, which in (
        ("ix_jobs_ended", ["tenant_id", "ended_at"], "ended_at IS NOT NULL"),
        ("ix_jobs_deleted", ["deleted_at"], "deleted_at IS NOT NULL"),
        ("ix_jobs_open_tunings", ["model"], f"kind = 'fine_tune' AND {OPEN}"),
        ("ix_jobs_open_of_tuned", ["model"], f"model LIKE 'ft:%' AND {OPEN}"),
        ("ix_jobs_open_of_media", ["tenant_id"], f"{OPEN} AND endpoint NOT IN ({NO_FILES})"),
    ):
        op.create_index(name, "jobs", columns, postgresql_where=sa.text(which))
    for column in ("input_file_id", "validation_file_id"):
        op.drop_index(f"ix_jobs_{column}", "jobs")
    for column in FILES:
        op.create_index(
            f"ix_jobs_{column}", "jobs", [column], postgresql_where=sa.text(f"{column} IS NOT NULL")
        )
    op.create_index(
        "ix_files_tenant_id_created_at", "files", ["tenant_id", "created_at"],
        postgresql_where=sa.text("deleted_at IS NULL"),
    )  # fmt: skip
    op.create_index(
        "ix_files_deleted_at", "files", ["deleted_at"],
        postgresql_where=sa.text("deleted_at IS NOT NULL"),
    )  # fmt: skip
    for table, column in (
        ("idempotency_keys", "job_id"),
        ("uploads", "join_id"),
        ("uploads", "file_id"),
    ):
        op.create_index(
            f"ix_{table}_{column}", table, [column],
            postgresql_where=sa.text(f"{column} IS NOT NULL"),
        )  # fmt: skip


def _moment(name: str) -> sa.Column[object]:
    return sa.Column(
        name,
        sa.DateTime(timezone=True),
        nullable=False,
        server_default=sa.text("clock_timestamp()"),
    )


def downgrade() -> None:
    for name in ("ix_uploads_file_id", "ix_uploads_join_id"):
        op.drop_index(name, "uploads")
    op.drop_index("ix_idempotency_keys_job_id", "idempotency_keys")
    op.drop_index("ix_files_deleted_at", "files")
    op.drop_index("ix_files_tenant_id_created_at", "files")
    for column in FILES:
        op.drop_index(f"ix_jobs_{column}", "jobs")
    for column in FILES[:2]:
        op.create_index(
            f"ix_jobs_{column}", "jobs", [column],
            postgresql_where=sa.text(f"{OPEN} AND {column} IS NOT NULL"),
        )  # fmt: skip
    for name in (
        "ix_jobs_open_of_media",
        "ix_jobs_open_of_tuned",
        "ix_jobs_open_tunings",
        "ix_jobs_deleted",
        "ix_jobs_ended",
    ):
        op.drop_index(name, "jobs")
    _index_uncleaned(f"(kind <> 'generate' OR endpoint NOT IN ({TEXT}))")
    for table in TABLES:
        op.drop_table(table)
