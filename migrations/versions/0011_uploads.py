"""Files in parts; batches made of batches."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

COMMENTS = {
    "validation_file_id": (
        "of a fine-tuning job",
        "of a fine-tuning job; of a batch of another one's rows: the file that says which",
    ),
    "model": (
        "null for a batch: its rows name theirs",
        "of a batch: the one that all of its rows name, once validated",
    ),
}


def upgrade() -> None:
    op.create_table(
        "uploads",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("tenant_id", sa.Text, sa.ForeignKey("tenants.id"), nullable=False),
        sa.Column("filename", sa.Text, nullable=False),
        sa.Column("purpose", sa.Text, nullable=False),
        sa.Column("bytes", sa.BigInteger, nullable=False, comment="of the whole file"),
        sa.Column("file_seconds", sa.Integer, comment="life of the file; null: for ever"),
        _moment("created_at"),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column(
            "join_id",
            sa.Text,
            sa.ForeignKey("jobs.id", ondelete="SET NULL"),
            comment="the last job that was to join the parts",
        ),
        sa.Column("join_sha256", sa.Text, comment="of what the job was asked to join"),
        sa.Column("file_id", sa.Text, sa.ForeignKey("files.id"), comment="once completed"),
        sa.Column("cancelled_at", sa.DateTime(timezone=True)),
        sa.Column("ended_at", sa.DateTime(timezone=True)),
        sa.Column("cleaned_at", sa.DateTime(timezone=True)),
    )
    op.create_index(
        "ix_uploads_uncleaned",
        "uploads",
        ["expires_at"],
        postgresql_where=sa.text("cleaned_at IS NULL"),
    )
    op.create_table(
        "upload_parts",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column(
            "upload_id", sa.Text, sa.ForeignKey("uploads.id", ondelete="CASCADE"), nullable=False
        ),
        sa.Column("bytes", sa.BigInteger, nullable=False),
        sa.Column("sha256", sa.Text, nullable=False),
        sa.Column("storage_key", sa.Text, nullable=False),
        _moment("created_at"),
    )
    op.create_index("ix_upload_parts_upload_id", "upload_parts", ["upload_id"])
    _comment(0, 1)


def downgrade() -> None:
    _comment(1, 0)
    op.drop_table("upload_parts")
    op.drop_table("uploads")


def _comment(before: int, after: int) -> None:
    for column, texts in COMMENTS.items():
        op.alter_column(
            "jobs",
            column,
            existing_type=sa.Text,
            existing_comment=texts[before],
            comment=texts[after],
        )


def _moment(name: str) -> sa.Column[object]:
    return sa.Column(
        name,
        sa.DateTime(timezone=True),
        nullable=False,
        server_default=sa.text("clock_timestamp()"),
    )
