"""The shapes of what calls for pictures, sounds, videos and campaigns answer."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from api.objects import JobError, Page, Shape, UnixSeconds, Usage

JobState = Literal["queued", "running", "succeeded", "failed", "cancelled", "expired"]


class Completion(Shape):
    """OpenAI's answer to a call for text."""

    id: str
    object: Literal["chat.completion", "text_completion"]
    created: UnixSeconds
    model: str
    choices: list[dict[str, Any]]
    usage: dict[str, int]
    system_fingerprint: str | None = None


class Embeddings(Shape):
    """OpenAI's answer to a call for embeddings."""

    object: Literal["list"]
    data: list[dict[str, Any]]
    model: str
    usage: dict[str, int]


class Score(Shape):
    """How sure a model is of a label."""

    label: str
    score: Annotated[float, Field(ge=0, le=1)]


class Entity(Score):
    """A part of a text that has a label: characters ``start`` to ``end``, without the last."""

    text: str
    start: int
    end: int


class Classification(Shape):
    """What a model says of one text: its best label and others, or the entities in it."""

    object: Literal["classification"]
    index: int
    truncated: Annotated[bool, Field(description="The text was longer than the model reads")]
    label: str | None = None
    score: float | None = None
    scores: list[Score] | None = None
    entities: list[Entity] | None = None


class Classifications(Shape):
    """The answer to a call for labels."""

    object: Literal["list"]
    data: list[Classification]
    model: str
    usage: dict[str, int]


class Image(Shape):
    """A picture: a URL that needs no key for a while, or the picture itself."""

    artifact_id: str
    url: str | None = None
    b64_json: str | None = None
    seed: int


class ImageTokens(Shape):
    """Of the input tokens."""

    text_tokens: int
    image_tokens: int


class ImageUsage(Usage):
    """What the pictures took."""

    input_tokens_details: ImageTokens


class Images(Shape):
    """OpenAI's answer to a call for pictures."""

    created: UnixSeconds
    model: str
    data: list[Image]
    size: str
    output_format: Literal["png", "jpeg", "webp"]
    steps: int
    usage: ImageUsage


class Voice(Shape):
    """A voice that a model speaks with."""

    id: str
    object: Literal["audio.voice"]
    name: str
    language: str | None
    model: str


class Artifact(Shape):
    """A file that a job made."""

    id: str
    object: Literal["artifact"]
    job_id: str
    line: Annotated[int, Field(description="Of a batch's input file, from 1; 0 elsewhere")]
    step: str | None
    role: str
    name: str
    media_type: str
    bytes: int
    sha256: str
    width: int | None
    height: int | None
    seconds: float | None
    parent_id: Annotated[str, Field(description="The artifact that this one illustrates")] | None
    provenance: Annotated[dict[str, Any], Field(description="How it was made")]
    created_at: UnixSeconds
    url: Annotated[str, Field(description="Needs no key, for a while")]


class Step(Shape):
    """One step of a job that makes several kinds of output."""

    id: str
    object: Literal["job.step"]
    name: str
    line: int
    endpoint: str
    model: str | None
    needs: Annotated[list[str], Field(description="Names of the steps that come before")]
    state: Literal["queued", "ready", "running", "succeeded", "failed", "cancelled"]
    progress: Annotated[float, Field(ge=0, le=1)]
    attempts: int
    error: JobError | None
    created_at: UnixSeconds
    started_at: UnixSeconds | None
    ended_at: UnixSeconds | None


class VideoError(Shape):
    """Why there is no video."""

    code: str
    message: str


class Video(Shape):
    """An OpenAI video. ``progress`` is in percent."""

    id: str
    object: Literal["video"]
    model: str | None
    alias: Annotated[
        str | None, Field(description="What the request called `model`, if that was an alias")
    ] = None
    status: Literal["queued", "in_progress", "completed", "failed"]
    progress: Annotated[int, Field(ge=0, le=100)]
    prompt: str | None
    seconds: str
    size: str
    error: VideoError | None
    created_at: UnixSeconds
    completed_at: UnixSeconds | None
    expires_at: UnixSeconds | None
    remixed_from_video_id: None
    captions_id: Annotated[str, Field(description="The artifact with its captions")] | None


class DeletedVideo(Shape):
    """A video that is gone."""

    id: str
    object: Literal["video.deleted"]
    deleted: Literal[True]


class StepCounts(Shape):
    """Steps of a campaign."""

    total: int
    completed: int
    failed: int


class Campaign(Shape):
    """A brief and what has become of it."""

    id: str
    object: Literal["campaign"]
    status: JobState
    stopping: Annotated[bool, Field(description="Asked to stop, and not yet stopped")]
    progress: Annotated[float, Field(ge=0, le=1)]
    steps: StepCounts
    product: str | None
    languages: list[str]
    outputs: list[str]
    model: str | None
    alias: Annotated[
        str | None, Field(description="What the request called `model`, if that was an alias")
    ] = None
    error: JobError | None
    artifacts: Annotated[int, Field(description="How many files are in the bundle")]
    contact_sheet_url: str | None
    zip_url: str | None
    manifest_url: str | None
    usage: Usage
    metadata: dict[str, str] | None
    created_at: UnixSeconds
    started_at: UnixSeconds | None
    ended_at: UnixSeconds | None
    expires_at: UnixSeconds | None


class VoiceList(Page):
    """All voices."""

    data: list[Voice]


class ArtifactList(Page):
    """A page of artifacts."""

    data: list[Artifact]


class StepList(Page):
    """A page of steps."""

    data: list[Step]


class VideoList(Page):
    """A page of videos."""

    data: list[Video]


class CampaignList(Page):
    """A page of campaigns."""

    data: list[Campaign]
