"""Settings of the API: how much one request may bring, and how long it may take."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, field_validator

from shared.translation.thresholds import parse_thresholds


class ApiSettings(BaseModel):
    """What requests may bring, and how long they may take."""

    model_config = ConfigDict(defer_build=True)

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

    @field_validator("moderation_threshold")
    @classmethod
    def _lists_thresholds(cls, text: str) -> str:
        parse_thresholds(text)
        return text
