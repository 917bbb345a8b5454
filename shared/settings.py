"""Every setting, read from the environment once, into one frozen object.

This is the only module that reads ``PRESSRUN_*``. An unknown name or a bad value stops the process
and names the variable. The settings are described in ``settings_places``, ``settings_workers``,
``settings_outside`` and ``settings_api``; ``docs/settings.md`` is generated from them.
"""

from __future__ import annotations

import os
from typing import Annotated, Any

from pydantic import ConfigDict, Field, ValidationError

from shared.settings_api import ApiSettings
from shared.settings_outside import OutsideSettings
from shared.settings_places import PlaceSettings
from shared.settings_workers import WorkerSettings

PREFIX = "PRESSRUN_"
CLIENT_VARIABLES = frozenset({"PRESSRUN_URL", "PRESSRUN_API_KEY"})
"""Read by the command line client, not by servers."""


TEST_PREFIX = "PRESSRUN_TEST_"
"""Switches of the test suite, which starts servers in its own environment."""


class SettingsError(Exception):
    """The environment can't be used; the message names each variable at fault."""


# Fields of the last base come first: that is the order of docs/settings.md.
class Settings(ApiSettings, OutsideSettings, WorkerSettings, PlaceSettings):
    """All settings of the API, the workers and upkeep."""

    model_config = ConfigDict(frozen=True, extra="ignore", validate_default=True)

    log_level: Annotated[
        str,
        Field(
            pattern="(?i)^(debug|info|warning|error)$", description="DEBUG, INFO, WARNING or ERROR."
        ),
    ] = "INFO"
    log_format: Annotated[
        str, Field(pattern="^(json|console)$", description="`json` or `console`.")
    ] = "json"


def given_settings() -> dict[str, Any]:
    """What the environment sets, by the settings' names; values are not yet validated. What is
    empty is not set."""
    names = {name: PREFIX + name.upper() for name in Settings.model_fields}
    return {name: os.environ[spelled] for name, spelled in names.items() if os.environ.get(spelled)}


def load_settings(**overrides: object) -> Settings:
    """Reads the environment. Raises SettingsError that names every variable at fault."""
    known = {PREFIX + name.upper() for name in Settings.model_fields} | CLIENT_VARIABLES
    unknown = sorted(
        name
        for name in os.environ
        if name.startswith(PREFIX) and not name.startswith(TEST_PREFIX) and name not in known
    )
    if unknown:
        raise SettingsError(f"unknown setting: {', '.join(unknown)}")
    try:
        settings = Settings.model_validate(given_settings() | overrides)
    except ValidationError as error:
        problems = [
            f"{PREFIX}{'.'.join(map(str, item['loc'])).upper()}: {item['msg']}"
            for item in error.errors(include_url=False, include_input=False)
        ]
        raise SettingsError("; ".join(problems)) from None
    if (settings.storage_dir is None) == (settings.s3_bucket is None):
        raise SettingsError("set exactly one of PRESSRUN_STORAGE_DIR and PRESSRUN_S3_BUCKET")
    if (settings.api_waiting_requests or 0) >= settings.api_threads:
        raise SettingsError(
            "PRESSRUN_API_WAITING_REQUESTS must be less than PRESSRUN_API_THREADS: else nobody is "
            "left to answer anything else"
        )
    if settings.session_ttl_seconds <= 2 * settings.heartbeat_seconds:
        # Else every lease ends by itself, and work runs again and again until it is given up.
        raise SettingsError(
            "PRESSRUN_SESSION_TTL_SECONDS must be more than twice PRESSRUN_HEARTBEAT_SECONDS"
        )
    return settings
