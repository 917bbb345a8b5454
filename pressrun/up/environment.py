"""The settings of the servers that `up` starts: its own choices, unless the operator's differ."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from pressrun.exit_codes import CommandError, ExitCode
from pressrun.up.data_folder import DataFolder, kept_secret, new_secret
from shared.settings import CLIENT_VARIABLES, PREFIX, Settings, SettingsError, load_settings

DRAIN_SECONDS = 10.0
"""Shorter than the servers' default: somebody waits at a terminal."""
HEARTBEAT_SECONDS = 2.0
SESSION_TTL_SECONDS = 10.0
"""On one machine no network is in the way, and after a `kill -9` work comes back sooner."""
EMBEDDED = "postgresql+psycopg://"
MODEL_MEMORY_SHARE = 0.7


def plant_settings(folder: DataFolder, given: dict[str, Any], *, workers: int) -> Settings:
    """The servers' settings, all paths absolute. Raises CommandError that names the variable.

    ``database_url`` is the operator's, or stands for the embedded one until that has started.
    """
    chosen: dict[str, Any] = {
        "database_url": EMBEDDED,
        "broker_url": f"filesystem://{folder.doorbells}",
        "signing_key": kept_secret(folder.signing_key, new_secret),
        "admin_key": kept_secret(folder.admin_key, new_secret),
        "models_file": folder.models_file,
        "scratch_dir": folder.scratch,
        "drain_seconds": DRAIN_SECONDS,
        "heartbeat_seconds": HEARTBEAT_SECONDS,
        "session_ttl_seconds": SESSION_TTL_SECONDS,
    }
    if "s3_bucket" not in given:
        chosen["storage_dir"] = folder.artifacts
    if workers > 1:
        chosen |= _shares(workers)
    try:
        settings = load_settings(**{**chosen, **given})
    except SettingsError as error:
        raise CommandError(str(error), ExitCode.USAGE) from None
    paths = {name: value.absolute() for name, value in settings if isinstance(value, Path)}
    # Children run from the repository's root, where the caller's relative paths mean nothing.
    return settings.model_copy(update=paths)


def server_environment(settings: Settings) -> dict[str, str]:
    """The environment of a server process: ours, with every setting spelled out."""
    spelled = {
        PREFIX + name.upper(): _spelled(value) for name, value in settings if value is not None
    }
    # The children parse these lines; the console renders them again.
    spelled[PREFIX + "LOG_FORMAT"] = "json"
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(PREFIX) and name not in CLIENT_VARIABLES
    }
    return {**inherited, **spelled, "PYTHONUNBUFFERED": "1"}


def _spelled(value: object) -> str:
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    return str(value).lower() if isinstance(value, bool) else str(value)


def _shares(workers: int) -> dict[str, int]:
    """An equal part of the machine for each worker."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "engine_threads": max(1, (os.cpu_count() or 1) // workers),
        "model_memory_bytes": int(memory * MODEL_MEMORY_SHARE / workers),
    }
