"""Graphs of steps, artifacts of any kind, slices with gaps, progress within a row."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

QUEUED = ["pool", "tenant_id", "priority", "id"]
UNCLEANED = """(kind <> 'generate' OR endpoint NOT IN
 ('/v1/chat/completions', '/v1/completions', '/v1/embeddings')) AND cleaned_at IS NULL"""


def upgrade() -> None:
    op.add_column(
        "jobs",
        sa.Column("progress", sa.Double, comment="of a job of one row while it runs: 0 to 1"),
    )
    op.add_column("jobs", sa.Column("deleted_at", sa.DateTime(timezone=True)))
    op.alter_column("shards", "ordinal", type_=sa.BigInteger)
    op.add_column(
        "shards",
        sa.Column(
            "blocked_n",
            sa.Integer,
            nullable=False,
            server_default=sa.text("0"),
            comment="what it still waits for; not dispatched above zero",
        ),
    )
    op.add_column(
        "shards",
        sa.Column(
            "lines",
            ARRAY(sa.Integer),
            comment="its lines of the input file, where other pools' rows lie between them",
        ),
    )
    op.add_column(
        "shards", sa.Column("progress", sa.Double, comment="of a step while it runs: 0 to 1")
    )
    op.drop_index("ix_shards_queued", "shards")
    op.create_index(
        "ix_shards_queued",
        "shards",
        QUEUED,
        postgresql_where=sa.text("state = 'queued' AND blocked_n = 0"),
    )
    op.drop_index("ix_jobs_uncleaned", "jobs")
    op.create_index("ix_jobs_uncleaned", "jobs", ["ended_at"], postgresql_where=sa.text(UNCLEANED))
    _create_steps()
    # Nothing has written an artifact before this revision.
    op.drop_table("artifacts")
    _create_artifacts()


def _create_steps() -> None:
    op.create_table(
        "steps",
        sa.Column(
            "shard_id",
            sa.BigInteger,
            sa.ForeignKey("shards.id", ondelete="CASCADE"),
            primary_key=True,
            autoincrement=False,
        ),
        sa.Column("job_id", sa.Text, sa.ForeignKey("jobs.id", ondelete="CASCADE"), nullable=False),
        sa.Column(
            "line",
            sa.Integer,
            nullable=False,
            server_default=sa.text("0"),
            comment="of the batch row that it works for; 0: for the job itself",
        ),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column(
            "needs",
            ARRAY(sa.Text),
            nullable=False,
            comment="names of the steps that come before",
        ),
        sa.Column("endpoint", sa.Text, nullable=False),
        sa.Column("model", sa.Text),
        sa.Column(
            "spec",
            sa.JSON,
            nullable=False,
            comment="the body, with references to other steps",
        ),
        sa.Column(
            "last",
            sa.Boolean,
            nullable=False,
            comment="its result is that of the job or the row",
        ),
        sa.Column("slice_id", sa.BigInteger, comment="the batch's slice that waits for the row"),
        sa.Column("result", sa.JSON),
        sa.Column(
            "ended",
            sa.Boolean,
            nullable=False,
            server_default=sa.text("false"),
            comment="on the last step: its graph has its outcome, which is counted once",
        ),
        sa.UniqueConstraint("job_id", "line", "name", name="uq_steps_job_id_line_name"),
    )
    op.create_index(
        "ix_steps_job_id_line",
        "steps",
        ["job_id", "line"],
        unique=True,
        postgresql_where=sa.text("last"),
    )
    op.create_index(
        "ix_steps_slice_id",
        "steps",
        ["slice_id"],
        postgresql_where=sa.text("slice_id IS NOT NULL"),
    )


def _create_artifacts() -> None:
    op.create_table(
        "artifacts",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("tenant_id", sa.Text, sa.ForeignKey("tenants.id"), nullable=False),
        sa.Column("job_id", sa.Text, sa.ForeignKey("jobs.id", ondelete="CASCADE"), nullable=False),
        sa.Column("shard_id", sa.BigInteger, nullable=False),
        sa.Column("line", sa.Integer, nullable=False, server_default=sa.text("0")),
        sa.Column("step", sa.Text, comment="the name of the step that made it"),
        sa.Column("role", sa.Text, nullable=False),
        sa.Column("parent_id", sa.Text, comment="the artifact that this one illustrates"),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("width", sa.Integer),
        sa.Column("height", sa.Integer),
        sa.Column("seconds", sa.Double),
        sa.Column("storage_key", sa.Text, nullable=False),
        sa.Column("media_type", sa.Text, nullable=False),
        sa.Column("bytes", sa.BigInteger, nullable=False),
        sa.Column("sha256", sa.Text, nullable=False),
        sa.Column("provenance", sa.JSON, nullable=False, server_default="{}"),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            nullable=False,
            server_default=sa.text("clock_timestamp()"),
        ),
    )
    op.create_index("ix_artifacts_job_id_id", "artifacts", ["job_id", "id"])


def downgrade() -> None:
    op.drop_table("artifacts")
    op.create_table(
        "artifacts",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("tenant_id", sa.Text, sa.ForeignKey("tenants.id"), nullable=False),
        sa.Column("job_id", sa.Text, sa.ForeignKey("jobs.id", ondelete="CASCADE"), nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("storage_key", sa.Text, nullable=False),
        sa.Column("media_type", sa.Text, nullable=False),
        sa.Column("bytes", sa.BigInteger, nullable=False),
        sa.Column("sha256", sa.Text, nullable=False),
        sa.Column("provenance", sa.JSON, nullable=False, server_default="{}"),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            nullable=False,
            server_default=sa.text("clock_timestamp()"),
        ),
    )
    op.create_index("ix_artifacts_job_id", "artifacts", ["job_id"])
    op.drop_table("steps")
    op.drop_index("ix_shards_queued", "shards")
    op.create_index(
        "ix_shards_queued", "shards", QUEUED, postgresql_where=sa.text("state = 'queued'")
    )
    op.drop_index("ix_jobs_uncleaned", "jobs")
    op.create_index(
        "ix_jobs_uncleaned",
        "jobs",
        ["ended_at"],
        postgresql_where=sa.text("kind <> 'generate' AND cleaned_at IS NULL"),
    )
    op.drop_column("shards", "progress")
    op.drop_column("shards", "lines")
    op.drop_column("shards", "blocked_n")
    op.alter_column("shards", "ordinal", type_=sa.Integer)
    op.drop_column("jobs", "deleted_at")
    op.drop_column("jobs", "progress")
