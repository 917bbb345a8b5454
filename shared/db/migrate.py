"""Alembic without an ini file: upgrade, and the check that models and migrations agree."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config

SCRIPTS = Path(__file__).resolve().parents[2] / "migrations"


def alembic_config(url: str) -> Config:
    """The configuration for the database at ``url`` (SQLAlchemy form)."""
    config = Config()
    config.set_main_option("script_location", str(SCRIPTS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["url"] = url
    return config


def upgrade(url: str, revision: str = "head") -> None:
    """Brings the database to ``revision``; running it again changes nothing."""
    command.upgrade(alembic_config(url), revision)


def downgrade(url: str, revision: str) -> None:
    command.downgrade(alembic_config(url), revision)


def check(url: str) -> None:
    """Raises alembic's CommandError when the tables differ from ``shared.db.tables``."""
    command.check(alembic_config(url))
