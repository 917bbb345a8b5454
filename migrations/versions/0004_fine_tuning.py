"""Fine-tuning: checkpoints, numbers of steps, models that tenants own, pauses."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

OPEN = "state IN ('queued', 'running')"


def upgrade() -> None:
    _extend_jobs()
    _extend_models()
    _create_checkpoints()
    op.create_table(
        "training_metrics",
        sa.Column("job_id", sa.Text, sa.ForeignKey("jobs.id", ondelete="CASCADE"), nullable=False),
        sa.Column("step", sa.BigInteger, nullable=False),
        sa.Column(
            "attempt",
            sa.Integer,
            nullable=False,
            comment="the shard's epoch when it was told",
        ),
        sa.Column("epoch", sa.Double, nullable=False, comment="passes over the data"),
        sa.Column(
            "values",
            sa.JSON,
            nullable=False,
            comment="numbers by name; null: not a finite one",
        ),
        _created_at(),
        sa.PrimaryKeyConstraint("job_id", "step", name="pk_training_metrics"),
    )


def _extend_jobs() -> None:
    op.add_column(
        "jobs",
        sa.Column(
            "validation_file_id",
            sa.Text,
            sa.ForeignKey("files.id"),
            comment="of a fine-tuning job",
        ),
    )
    op.add_column(
        "jobs",
        sa.Column(
            "detail",
            sa.JSON,
            nullable=False,
            server_default="{}",
            comment="of a fine-tuning job: what was found in its data, what its training said",
        ),
    )
    op.add_column("jobs", sa.Column("paused_at", sa.DateTime(timezone=True)))
    op.create_index(
        "ix_jobs_validation_file_id",
        "jobs",
        ["validation_file_id"],
        postgresql_where=sa.text(f"{OPEN} AND validation_file_id IS NOT NULL"),
    )


def _extend_models() -> None:
    made = (
        sa.Column(
            "adapter",
            sa.Boolean,
            nullable=False,
            server_default=sa.text("false"),
            comment="weights on top of base_model, which must be there to serve it",
        ),
        sa.Column(
            "files",
            sa.JSON,
            nullable=False,
            server_default="[]",
            comment="path, key, bytes and sha256 of each, where the store has them",
        ),
        sa.Column("bytes", sa.BigInteger, nullable=False, server_default=sa.text("0")),
        sa.Column(
            "detail",
            sa.JSON,
            nullable=False,
            server_default="{}",
            comment="how it was made: recipe, hyperparameters, metrics, data, parents",
        ),
    )
    op.add_column(
        "models",
        sa.Column("base_model", sa.Text, comment="the name of the model that it was tuned from"),
    )
    for column in made:
        op.add_column("models", column)
    op.add_column(
        "models", sa.Column("job_id", sa.Text, comment="the fine-tuning job that made it")
    )
    op.add_column("models", sa.Column("cleaned_at", sa.DateTime(timezone=True)))
    op.create_index("ix_models_tenant_id_id", "models", ["tenant_id", "id"])
    op.create_index(
        "ix_models_job_id", "models", ["job_id"], postgresql_where=sa.text("job_id IS NOT NULL")
    )
    op.create_index(
        "ix_models_uncleaned",
        "models",
        ["deleted_at"],
        postgresql_where=sa.text(
            "deleted_at IS NOT NULL AND cleaned_at IS NULL AND job_id IS NOT NULL"
        ),
    )


def _create_checkpoints() -> None:
    op.create_table(
        "checkpoints",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("tenant_id", sa.Text, sa.ForeignKey("tenants.id"), nullable=False),
        sa.Column("job_id", sa.Text, sa.ForeignKey("jobs.id", ondelete="CASCADE"), nullable=False),
        sa.Column("shard_id", sa.BigInteger, nullable=False),
        sa.Column("epoch", sa.Integer, nullable=False, comment="the attempt that made it"),
        sa.Column("step", sa.BigInteger, nullable=False),
        sa.Column("prefix", sa.Text, nullable=False, comment="of the keys of all its objects"),
        sa.Column("manifest_key", sa.Text, nullable=False),
        sa.Column("manifest_sha256", sa.Text, nullable=False),
        sa.Column("files", sa.JSON, nullable=False, comment="path, key, bytes and sha256 of each"),
        sa.Column("bytes", sa.BigInteger, nullable=False, server_default=sa.text("0")),
        sa.Column("metrics", sa.JSON, nullable=False, server_default="{}"),
        sa.Column("best", sa.Boolean, nullable=False, server_default=sa.text("false")),
        sa.Column("model_id", sa.Text, comment="the name under which it can be asked"),
        _created_at(),
        sa.Column("dropped_at", sa.DateTime(timezone=True)),
        sa.UniqueConstraint("job_id", "epoch", "step", name="uq_checkpoints_job_id_epoch_step"),
    )
    op.create_index(
        "ix_checkpoints_model_id",
        "checkpoints",
        ["model_id"],
        postgresql_where=sa.text("dropped_at IS NULL"),
    )


def _created_at() -> sa.Column[object]:
    return sa.Column(
        "created_at",
        sa.DateTime(timezone=True),
        nullable=False,
        server_default=sa.text("clock_timestamp()"),
    )


def downgrade() -> None:
    op.drop_table("training_metrics")
    op.drop_table("checkpoints")
    for index in ("ix_models_uncleaned", "ix_models_job_id", "ix_models_tenant_id_id"):
        op.drop_index(index, "models")
    for column in ("cleaned_at", "job_id", "detail", "bytes", "files", "adapter", "base_model"):
        op.drop_column("models", column)
    op.drop_index("ix_jobs_validation_file_id", "jobs")
    for column in ("paused_at", "detail", "validation_file_id"):
        op.drop_column("jobs", column)
