"""What retention and deletions need to be tried: time that has passed, and what is left."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, text

from shared.db.columns import metadata

PROOF = {"deletions", "deletion_objects"}
"""Tables that say what was deleted, and outlive it."""


def rows_that_mention(connection: Connection, *words: str) -> dict[str, int]:
    """By table: how many rows hold one of these words anywhere, the proof apart."""
    found = {}
    for name in sorted(set(metadata.tables) - PROOF):
        rows = connection.execute(
            text(f"SELECT count(*) FROM {name} t WHERE CAST(t AS text) LIKE ANY(:words)"),
            {"words": [f"%{word}%" for word in words]},
        ).scalar_one()
        if rows:
            found[name] = int(rows)
    return found


def objects_below(root: Path, tenant_id: str) -> list[str]:
    """Keys of a directory store that are the tenant's."""
    top = root / "t" / tenant_id
    return sorted(path.relative_to(root).as_posix() for path in top.rglob("*") if path.is_file())


def let_pass(connection: Connection, days: float) -> None:
    """Everything happened ``days`` earlier."""
    for table, columns in (
        ("jobs", ("created_at", "started_at", "ended_at", "cleaned_at", "deleted_at")),
        ("files", ("created_at", "deleted_at")),
        ("usage", ("created_at",)),
        ("webhook_deliveries", ("ended_at",)),
        ("archived_jobs", ("ended_at",)),
    ):
        listed = ", ".join(f"{name} = {name} - make_interval(secs => :secs)" for name in columns)
        connection.execute(text(f"UPDATE {table} SET {listed}"), {"secs": days * 86_400})
