"""Alembic's environment; versions are numbered and never edited once released."""
