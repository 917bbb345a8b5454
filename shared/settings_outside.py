"""Settings of what is asked of others' servers: webhooks are sent there, sources read there."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, field_validator

from shared.egress.targets import parse_allowed
from shared.feed_roots import parse_roots


class OutsideSettings(BaseModel):
    """What of the world outside may be reached, and how long it may take."""

    model_config = ConfigDict(defer_build=True)

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
