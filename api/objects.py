"""The shapes of what the API answers. For the documentation and for tests: rendering builds plain
dicts, and a test holds each against its shape here."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

UnixSeconds = Annotated[int, Field(description="Unix time in seconds")]


class Shape(BaseModel):
    """A JSON object with exactly these members."""

    # Only the OpenAPI document reads them: none is built before somebody asks for it.
    model_config = ConfigDict(extra="forbid", defer_build=True)


class ErrorForSdk(Shape):
    """What OpenAI's SDKs read of an error."""

    message: str
    type: str
    param: str | None
    code: str


class FieldProblem(Shape):
    """One field at fault."""

    detail: str
    param: str | None


class Problem(Shape):
    """RFC 9457 problem details, and beside them the member that OpenAI's SDKs read."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    errors: list[FieldProblem] = []
    error: ErrorForSdk


class JobError(Shape):
    """Why a job failed."""

    code: str
    message: str
    param: str | None
    line: Annotated[int, Field(description="The first one at fault of a batch's input")] | None = (
        None
    )


class CommonestError(Shape):
    """Of a job without a success: what most of its rows failed with."""

    code: str
    count: int


class Usage(Shape):
    """Tokens that a job consumed."""

    input_tokens: int
    output_tokens: int
    total_tokens: int


class Timings(Shape):
    """How long each phase took, once it is over."""

    queued_seconds: float | None
    running_seconds: float | None


class JobFile(Shape):
    """One of a batch's files of results."""

    name: Literal["output", "errors"]
    file_id: str
    content_url: str


class Job(Shape):
    """A job of any kind. ``result`` is on jobs other than batches that were retrieved by id."""

    id: str
    object: Literal["job"]
    client_id: (
        Annotated[str, Field(description="The caller's own id, of a job that was PUT")] | None
    )
    version: Annotated[int, Field(description="Goes up with every change")]
    kind: Literal[
        "generate",
        "batch",
        "video",
        "campaign",
        "fine_tune",
        "evaluation",
        "optimization",
        "response",
        "import",
        "production",
    ]
    state: Literal["queued", "running", "succeeded", "failed", "cancelled", "expired"]
    stopping: bool = Field(description="Asked to stop, and not yet stopped")
    endpoint: str
    model: str | None
    alias: Annotated[
        str | None, Field(description="What the request called `model`, if that was an alias")
    ] = None
    models: Annotated[
        dict[str, str], Field(description="Who held each alias that was named, by alias")
    ] = {}
    metadata: dict[str, str] | None
    progress: Annotated[float, Field(ge=0, le=1)]
    queue_position: (
        Annotated[int, Field(description="Shards ahead in line; 1000 stands for 1000 or more")]
        | None
    ) = None
    estimated_start: (
        Annotated[int, Field(description="Unix time; only where its pool's recent pace tells it")]
        | None
    ) = None
    eta_seconds: (
        Annotated[int, Field(description="Until its end; only where something measured tells it")]
        | None
    ) = None
    succeeded: Annotated[int, Field(description="Rows, or steps, that succeeded")]
    failed: int
    error: JobError | None
    error_counts: (
        Annotated[dict[str, int], Field(description="Of a batch's failed rows, by code")] | None
    ) = None
    commonest_error: CommonestError | None = None
    result: dict[str, Any] | None = Field(
        default=None,
        description="The response body of the endpoint; its URLs are fresh ones on every look",
    )
    status_url: str
    result_url: str
    cancel_url: str
    events_url: str
    artifacts: list[JobFile]
    artifacts_url: (
        Annotated[str, Field(description="Where its pictures, sounds and videos are listed")] | None
    ) = None
    steps_url: Annotated[str, Field(description="Where its steps are listed")] | None = None
    usage: Usage
    created_at: UnixSeconds
    started_at: UnixSeconds | None
    ended_at: UnixSeconds | None
    expires_at: UnixSeconds | None
    timings: Timings


class File(Shape):
    """An OpenAI file."""

    id: str
    object: Literal["file"]
    bytes: int
    created_at: UnixSeconds
    expires_at: UnixSeconds | None
    filename: str
    purpose: str
    status: Literal["processed"]


class Deleted(Shape):
    """A file that is gone."""

    id: str
    object: Literal["file"]
    deleted: Literal[True]


class BatchLineError(Shape):
    """Why a batch's input was refused; ``line`` is 1-based."""

    code: str
    message: str
    param: str | None
    line: int | None


class BatchErrors(Shape):
    """The bad lines of a batch's input."""

    object: Literal["list"]
    data: list[BatchLineError]


class Health(Shape):
    """The process answers."""

    status: Literal["ok"]


class Readiness(Shape):
    """Whether work can be accepted; a degraded broker only makes work start later."""

    status: Literal["ready", "unavailable"]
    database: Literal["ok", "down"]
    broker: Literal["ok", "degraded", "off"]


class Page(Shape):
    """One page of a list; the next one starts ``after`` its ``last_id``."""

    object: Literal["list"]
    has_more: bool
    first_id: str | None
    last_id: str | None


class JobList(Page):
    """A page of jobs."""

    data: list[Job]


class FileList(Page):
    """A page of files."""

    data: list[File]
