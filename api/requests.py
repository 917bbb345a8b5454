"""The bodies that the API reads."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from api.limits import DEFAULT_PRIORITY, MAX_DEADLINE_SECONDS, MAX_POLLED_JOBS, MAX_VERSION
from api.webhook_requests import WebhookMember
from shared.weights import LEAST_WEIGHT, MOST_WEIGHT

Metadata = Annotated[
    dict[Annotated[str, Field(max_length=64)], Annotated[str, Field(max_length=512)]],
    Field(max_length=16, description="Up to 16 labels of the caller's own"),
]
Name = Annotated[str, Field(min_length=1, max_length=256)]


class RequestBody(BaseModel):
    """A JSON body. Unknown members are refused by name, types are not converted."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, defer_build=True)


class JobRequest(RequestBody):
    """One inference call, to be run when its turn comes."""

    endpoint: Annotated[str, Field(max_length=256, description="Such as `/v1/chat/completions`")]
    body: Annotated[dict[str, Any], Field(description="The body this endpoint takes")]
    metadata: Metadata | None = None
    priority: Annotated[int, Field(ge=0, le=9, description="Lower runs first")] = DEFAULT_PRIORITY
    expires_in_seconds: (
        Annotated[
            float, Field(gt=0, le=MAX_DEADLINE_SECONDS, description="Give up after this long")
        ]
        | None
    ) = None
    expires_at: (
        Annotated[
            float | Annotated[str, Field(max_length=64, json_schema_extra={"format": "date-time"})],
            Field(description="Give up then: Unix seconds, or a time by RFC 3339"),
        ]
        | None
    ) = None
    dry_run: Annotated[
        bool, Field(description="Check it all, say what it would take, and accept nothing")
    ] = False
    webhook: WebhookMember = None


class PollRequest(RequestBody):
    """Many jobs to look at in one call."""

    ids: Annotated[
        list[Annotated[str, Field(max_length=256)]],
        Field(min_length=1, max_length=MAX_POLLED_JOBS, description="Ours, or the caller's own"),
    ]
    after_versions: Annotated[
        dict[Annotated[str, Field(max_length=256)], Annotated[int, Field(ge=0, le=MAX_VERSION)]],
        Field(
            max_length=MAX_POLLED_JOBS,
            description="By id, the `version` that is known: shown again only once it is higher",
        ),
    ] = {}
    wait: Annotated[
        float,
        Field(
            ge=0,
            le=86_400,
            description="Where nothing is new: answer once something is, or after so many seconds, "
            "as far as the server lets calls wait",
        ),
    ] = 0


class ExpiresAfter(RequestBody):
    """How long a file lives."""

    anchor: Literal["created_at"]
    seconds: Annotated[int, Field(ge=3_600, le=2_592_000)]


class BatchRequest(RequestBody):
    """A batch of calls, one a line of the input file."""

    input_file_id: Annotated[str, Field(max_length=256)]
    endpoint: Annotated[str, Field(max_length=256)]
    completion_window: Annotated[
        str, Field(max_length=16, description="Whole minutes, hours or days: `30m`, `24h`, `7d`")
    ]
    metadata: Metadata | None = None
    output_expires_after: Annotated[
        ExpiresAfter | None, Field(description="Of the files that the batch makes")
    ] = None
    priority: Annotated[int, Field(ge=0, le=9, description="Lower runs first")] = DEFAULT_PRIORITY
    dry_run: Annotated[
        bool, Field(description="Check the whole file, say what it would take, and run nothing")
    ] = False
    webhook: WebhookMember = None


class BatchRetryRequest(RequestBody):
    """A batch of those rows of an ended one that have no answer."""

    only: Annotated[
        Literal["failed", "expired", "cancelled", "all"],
        Field(description="Rows that failed; that the deadline, or a cancel, kept from running"),
    ] = "failed"
    completion_window: (
        Annotated[str, Field(max_length=16, description="The first batch's, if left out")] | None
    ) = None
    priority: (
        Annotated[int, Field(ge=0, le=9, description="The first batch's, if left out")] | None
    ) = None
    webhook: WebhookMember = None


MOST = 2**53 - 1
"""The largest number that every reader of JSON understands."""
Whole = Annotated[int, Field(ge=0, le=MOST)]
Micro = Annotated[
    int, Field(ge=0, le=MOST, description="In millionths of the unit that prices are in")
]


class LimitsRequest(RequestBody):
    """Limits to be set; null takes one away, what is left out stays."""

    requests_per_second: Annotated[float, Field(ge=0.000_001, le=1_000_000)] | None = None
    request_burst: (
        Annotated[
            int,
            Field(ge=1, le=1_000_000, description="At once, after a pause; else a second's worth"),
        ]
        | None
    ) = None
    queued_rows: Whole | None = None
    running_shards: Annotated[int, Field(ge=0, le=1_000_000)] | None = None
    stored_bytes: Whole | None = None
    daily_tokens: Whole | None = None
    daily_compute_seconds: Annotated[float, Field(ge=0, le=MOST)] | None = None
    daily_budget: Micro | None = None
    monthly_budget: Micro | None = None


Weight = Annotated[
    float,
    Field(
        ge=LEAST_WEIGHT,
        le=MOST_WEIGHT,
        description="Its part of a pool, over those of all who wait there",
    ),
]


class TenantRequest(RequestBody):
    """A new tenant."""

    name: Name
    weight: Weight = 1.0
    limits: LimitsRequest = LimitsRequest()
    disabled: bool = False


class TenantChange(RequestBody):
    """What is to be different about a tenant; what is left out stays."""

    name: Name | None = None
    weight: Weight | None = None
    limits: LimitsRequest = LimitsRequest()
    disabled: bool | None = None


class KeyRequest(RequestBody):
    """A new key of a tenant."""

    name: Annotated[str, Field(max_length=256)] = ""
    expires_in_seconds: Annotated[float, Field(gt=0, le=10 * 366 * 86_400)] | None = None


class FileForm(BaseModel):
    """The parts of a file upload."""

    file: Annotated[bytes, Field(json_schema_extra={"format": "binary"})]
    purpose: Literal["assistants", "batch", "fine-tune", "vision", "user_data", "evals", "model"]
    expires_after_anchor: Annotated[
        Literal["created_at"] | None, Field(alias="expires_after[anchor]")
    ] = None
    expires_after_seconds: Annotated[
        int | None, Field(alias="expires_after[seconds]", ge=3_600, le=2_592_000)
    ] = None
