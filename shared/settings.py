"""Every setting, read from the environment once, into one frozen object.

This is the only module that reads ``PRESSRUN_*``. An unknown name or a bad value stops the process
and names the variable. ``docs/settings.md`` is generated from the descriptions below.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator

from shared.egress.targets import parse_allowed
from shared.feed_roots import parse_roots
from shared.retention import parse_retention
from shared.translation.thresholds import parse_thresholds

PREFIX = "PRESSRUN_"
CLIENT_VARIABLES = frozenset({"PRESSRUN_URL", "PRESSRUN_API_KEY"})
"""Read by the command line client, not by servers."""


TEST_PREFIX = "PRESSRUN_TEST_"
"""Switches of the test suite, which starts servers in its own environment."""


class SettingsError(Exception):
    """The environment can't be used; the message names each variable at fault."""


class Settings(BaseModel):
    """All settings of the API, the workers and upkeep."""

    model_config = ConfigDict(frozen=True, extra="ignore", validate_default=True)

    database_url: Annotated[
        str,
        Field(description="SQLAlchemy URL of Postgres 15 or newer: `postgresql+psycopg://…`."),
    ]
    broker_url: Annotated[
        str,
        Field(
            description="Celery broker for doorbells: `amqp://…`, or `filesystem://DIR` on one "
            "machine. Empty: no doorbells, work is found by polling alone."
        ),
    ] = ""
    storage_dir: Annotated[
        Path | None,
        Field(description="Keep artifacts in this local directory. Exclusive with `S3_BUCKET`."),
    ] = None
    s3_bucket: Annotated[
        str | None, Field(description="Keep artifacts in this bucket of an S3-compatible store.")
    ] = None
    s3_endpoint: Annotated[
        str | None, Field(description="Address of the S3 store; empty for AWS itself.")
    ] = None
    s3_public_endpoint: Annotated[
        str | None,
        Field(
            description="Address that partners reach, for presigned URLs; default `S3_ENDPOINT`."
        ),
    ] = None
    s3_region: Annotated[str, Field(description="Region used to sign S3 requests.")] = "us-east-1"
    s3_access_key: Annotated[
        str | None, Field(description="S3 access key; empty: boto3's own credential chain.")
    ] = None
    s3_secret_key: Annotated[SecretStr | None, Field(description="S3 secret key.")] = None
    admin_key: Annotated[
        SecretStr | None,
        Field(description="Key of the `/v1/admin` routes; without one they answer 403."),
    ] = None
    signing_key: Annotated[
        SecretStr,
        Field(
            min_length=16,
            description="Secret that signs download URLs of the local directory store; the same "
            "on every API process.",
        ),
    ]
    public_url: Annotated[
        str | None,
        Field(description="Address partners use, for absolute URLs; default: the request's own."),
    ] = None
    models_file: Annotated[
        Path | None,
        Field(description="TOML catalog of models; `pressrun migrate` loads it into the database."),
    ] = None
    scratch_dir: Annotated[
        Path,
        Field(description="Folder for uploads in flight and for results waiting to be stored."),
    ] = Path("/tmp/pressrun")  # noqa: S108  (a default that works anywhere; mode 0700 when made)

    pools: Annotated[
        str,
        Field(description="Pools a worker serves when `--pools` is not given, comma-separated."),
    ] = "text"
    heartbeat_seconds: Annotated[
        float, Field(gt=0, description="How often a worker renews its session lease.")
    ] = 5.0
    session_ttl_seconds: Annotated[
        float, Field(gt=0, description="A session not renewed for this long is dead.")
    ] = 30.0
    poll_seconds: Annotated[
        float,
        Field(gt=0, description="How often workers look for work that no doorbell announced."),
    ] = 2.0
    upkeep_seconds: Annotated[
        float, Field(gt=0, description="Pause between passes of dispatcher, reaper and cleaner.")
    ] = 1.0
    drain_seconds: Annotated[
        float,
        Field(gt=0, description="After SIGTERM: time to finish shards before giving them back."),
    ] = 20.0
    idle_engine_seconds: Annotated[
        float,
        Field(gt=0, description="A child with work that finishes no step for this long is killed."),
    ] = 120.0
    load_engine_seconds: Annotated[
        float, Field(gt=0, description="A child that loads its model for longer is killed.")
    ] = 900.0
    ready_window: Annotated[
        int, Field(ge=1, description="Shards of one tenant and pool that may be ready at a time.")
    ] = 32
    model_memory_bytes: Annotated[
        int | None,
        Field(description="Memory for loaded models on a worker; default: 70 % of the machine's."),
    ] = None
    model_cache_bytes: Annotated[
        int,
        Field(
            ge=1,
            description="Disk for tuned models that a worker has fetched from the store, below "
            "`SCRATCH_DIR`; the least recently used make room.",
        ),
    ] = 20 * 2**30
    engine_threads: Annotated[
        int | None, Field(description="CPU threads of an engine child; default: all cores.")
    ] = None
    train_slots: Annotated[
        int, Field(ge=1, description="Trainings that a worker of the pool `train` runs at a time.")
    ] = 1
    train_idle_seconds: Annotated[
        float,
        Field(
            gt=0,
            description="A training that says nothing for this long, not even the loss of a step, "
            "is killed and tried again.",
        ),
    ] = 1800.0
    hub_offline: Annotated[
        bool, Field(description="Forbid engines to download models from a hub.")
    ] = False

    retention_days: Annotated[
        str,
        Field(
            description="Days for which things are kept: `jobs=90,outputs=30`, of `input_files`, "
            "`outputs`, `jobs`, `events`, `usage` and `archive`; what is not listed is kept for "
            "ever. Tenants may have policies of their own.",
        ),
    ] = ""
    deletion_grace_seconds: Annotated[
        float,
        Field(
            ge=0,
            description="How long after the end of a job a worker that was given up might still "
            "write objects of it; deletions are complete only then.",
        ),
    ] = 3600.0

    webhook_allowed_hosts: Annotated[
        str,
        Field(
            description="Hosts that webhooks may reach though they are private, or by plain HTTP, "
            "comma-separated: `crm.internal` (its ports 80 and 443) or `10.0.0.5:8080`. All others "
            "must be public and https."
        ),
    ] = ""
    webhook_ca_file: Annotated[
        Path | None,
        Field(description="PEM file of authorities that webhooks trust beside the system's."),
    ] = None
    webhook_concurrency: Annotated[
        int, Field(ge=1, le=512, description="Webhooks that one upkeep worker sends at a time.")
    ] = 32
    webhook_timeout_seconds: Annotated[
        float,
        Field(
            gt=0,
            le=60,
            description="A receiver that has not answered a webhook by then has failed.",
        ),
    ] = 15.0

    feed_allowed_hosts: Annotated[
        str,
        Field(
            description="Hosts that sources of schedules and monitors may be read from though they "
            "are private, or by plain HTTP, comma-separated, as of webhooks."
        ),
    ] = ""
    feed_folders: Annotated[
        str,
        Field(
            description="Folders that sources may be read from, comma-separated: `drop=/srv/drop`. "
            "Every tenant reads below its own id there, and nothing else."
        ),
    ] = ""
    feed_max_bytes: Annotated[
        int, Field(ge=1024, le=2**28, description="The most that is read of a source at a time.")
    ] = 8 * 2**20
    feed_timeout_seconds: Annotated[
        float, Field(gt=0, le=120, description="A source that was not read by then has failed.")
    ] = 30.0
    schedule_max_failures: Annotated[
        int,
        Field(ge=1, le=1_000, description="Runs of a schedule that fail in a row until it pauses."),
    ] = 5

    max_body_bytes: Annotated[int, Field(ge=1024, description="Largest JSON request body.")] = 2**20
    max_media_body_bytes: Annotated[
        int,
        Field(
            ge=1024,
            description="Largest JSON body of the calls that may bring pictures as `data:` URLs.",
        ),
    ] = 32 * 2**20
    max_file_bytes: Annotated[int, Field(ge=1024, description="Largest uploaded file.")] = 5 * 2**30
    max_upload_bytes: Annotated[
        int, Field(ge=1024, description="Largest file that is uploaded in parts.")
    ] = 8 * 2**30
    max_batch_rows: Annotated[int, Field(ge=1, description="Most rows in one batch.")] = 1_000_000
    max_line_bytes: Annotated[
        int, Field(ge=1024, description="Longest line of a batch input file.")
    ] = 4 * 2**20
    max_reported_errors: Annotated[
        int, Field(ge=1, description="Bad lines listed on a rejected batch; the rest are counted.")
    ] = 1_000
    max_wait_seconds: Annotated[float, Field(ge=0, description="Longest long-poll (`?wait=`).")] = (
        30.0
    )
    api_threads: Annotated[
        int,
        Field(
            ge=4,
            le=4_096,
            description="Threads of one API process; each serves one request at a time, and an "
            "open event stream or long-poll keeps one. They are made when they are needed.",
        ),
    ] = 24
    api_waiting_requests: Annotated[
        int | None,
        Field(
            ge=1,
            description="Long-polls, event streams and direct calls that one API process holds at "
            "a time, of which one tenant has three quarters at most; default: half of "
            "`API_THREADS`. Above it long-polls answer at once, and others 429.",
        ),
    ] = None
    api_patience_seconds: Annotated[
        float,
        Field(
            gt=0,
            le=3_600,
            description="How long the API waits, in all, for the bytes of one request, beside a "
            "second for each KiB of it that has come; then it hangs up.",
        ),
    ] = 30.0
    direct_seconds: Annotated[
        float,
        Field(
            gt=0,
            description="How long a direct call (`POST /v1/chat/completions` and the like) waits "
            "for its result before it answers 504; its job goes on. Less than the 600 s after "
            "which OpenAI's clients give up and ask again.",
        ),
    ] = 570.0
    moderation_model: Annotated[
        str | None,
        Field(
            max_length=256,
            description="Classifier, or alias of one, that `POST /v1/moderations` asks when the "
            "call names no model; default: the first one by name whose catalog entry lists that "
            "endpoint.",
        ),
    ] = None
    moderation_threshold: Annotated[
        str,
        Field(
            description="Score from which a category of moderation is flagged, and exceptions: "
            "`0.5,violence=0.8,spam=off`. A category that is `off` is not shown.",
        ),
    ] = "0.5"
    key_cache_seconds: Annotated[
        float,
        Field(
            ge=0,
            description="How long an API process trusts a key it has looked up; a revoked "
            "key works at most this much longer.",
        ),
    ] = 2.0
    download_url_seconds: Annotated[
        int, Field(ge=1, le=604_800, description="Life of a presigned download URL.")
    ] = 900
    log_level: Annotated[
        str,
        Field(
            pattern="(?i)^(debug|info|warning|error)$", description="DEBUG, INFO, WARNING or ERROR."
        ),
    ] = "INFO"
    log_format: Annotated[
        str, Field(pattern="^(json|console)$", description="`json` or `console`.")
    ] = "json"

    @field_validator("database_url")
    @classmethod
    def _names_the_driver(cls, url: str) -> str:
        if not url.startswith("postgresql+psycopg://"):
            raise ValueError("must start with postgresql+psycopg://")
        return url

    @field_validator("moderation_threshold")
    @classmethod
    def _lists_thresholds(cls, text: str) -> str:
        parse_thresholds(text)
        return text

    @field_validator("retention_days")
    @classmethod
    def _lists_days(cls, days: str) -> str:
        parse_retention(days)
        return days

    @field_validator("feed_folders")
    @classmethod
    def _lists_folders(cls, folders: str) -> str:
        parse_roots(folders)
        return folders

    @field_validator("webhook_allowed_hosts", "feed_allowed_hosts")
    @classmethod
    def _lists_hosts(cls, hosts: str) -> str:
        parse_allowed(hosts)
        return hosts


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
