"""The bodies about how long things are kept."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from api.requests import RequestBody
from shared.retention import MOST_DAYS

Days = Annotated[int, Field(ge=1, le=MOST_DAYS)]


class RetentionRequest(RequestBody):
    """A tenant's own days; `null`: for ever, left out: as the plant's settings say."""

    input_files: Days | None = None
    outputs: Days | None = None
    jobs: Days | None = None
    events: Days | None = None
    usage: Days | None = None
    archive: Days | None = None
