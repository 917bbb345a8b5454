"""The shapes of fine-tuning jobs: OpenAI's members, and beside them ours."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from api.objects import BatchLineError, Page, Shape, UnixSeconds


class OpenShape(Shape):
    """A JSON object with at least these members."""

    model_config = ConfigDict(extra="allow", defer_build=True)


class TuningError(Shape):
    """Why a fine-tuning job failed; ``lines`` are those of its data that were refused."""

    code: str
    message: str
    param: str | None
    lines: list[BatchLineError] | None = None


class TuningHyperparameters(OpenShape):
    """As asked for, and as decided once the training has begun."""

    n_epochs: int | Literal["auto"]
    batch_size: int | Literal["auto"]
    learning_rate_multiplier: float | Literal["auto"]


class TuningMethod(OpenShape):
    """The recipe, and its options under its own name."""

    type: str


class BestTrial(Shape):
    """The trial with the best value so far; of equals, the earliest."""

    job: str
    number: int
    params: dict[str, Any]
    value: float


class SweepProgress(Shape):
    """How far the search of a sweep is."""

    trials: int = Field(description="How many there are to be")
    metric: str
    direction: Literal["minimize", "maximize"]
    pruning: bool
    parallel: int
    space: dict[str, Any]
    finished: int
    pruned: int
    failed: int = Field(description="Failed or cancelled")
    running: int = Field(description="Trials that have not ended")
    best: BestTrial | None


class SweepTrial(Shape):
    """What a job that is a trial of a sweep tries."""

    number: int
    params: dict[str, Any]
    value: Annotated[
        float | None, Field(description="Of the sweep's metric, of the model that was delivered")
    ]
    pruned: bool = Field(description="Stopped because it promised nothing")


class FineTuningJob(Shape):
    """An OpenAI fine-tuning job."""

    id: str
    object: Literal["fine_tuning.job"]
    created_at: UnixSeconds
    finished_at: UnixSeconds | None
    estimated_finish: Annotated[
        UnixSeconds | None, Field(description="From the measured speed; null without one")
    ]
    model: str
    fine_tuned_model: str | None
    organization_id: str
    status: Literal["validating_files", "queued", "running", "succeeded", "failed", "cancelled"]
    training_file: str
    validation_file: str | None
    result_files: list[str]
    trained_tokens: int | None
    error: TuningError | None
    alias: Annotated[
        str | None, Field(description="What the request called `model`, if that was an alias")
    ] = None
    seed: int
    hyperparameters: TuningHyperparameters
    method: TuningMethod
    integrations: list[dict[str, Any]] | None
    metadata: dict[str, str] | None
    suffix: str | None
    recipe: str
    parent_id: Annotated[str | None, Field(description="Of a trial: the job that searches")]
    sweep: Annotated[
        SweepProgress | SweepTrial | None, Field(description="Of a job that searches, or a trial")
    ]
    paused: bool = Field(description="Asked to pause; `status` stays one of OpenAI's")
    stopping: bool = Field(description="Asked to stop, and not yet stopped")
    dry_run: bool
    progress: Annotated[float, Field(ge=0, le=1)]
    step: int | None
    steps: int | None
    loss: float | None
    queue_position: int | None = None
    lineage: Annotated[list[str], Field(description="What is tuned, and what that was tuned from")]
    data: Annotated[dict[str, Any] | None, Field(description="What was found in the files")]
    estimate: Annotated[dict[str, Any] | None, Field(description="What it takes, from the data")]
    training: Annotated[dict[str, Any] | None, Field(description="What the training said")]
    metrics: Annotated[dict[str, Any] | None, Field(description="Before and after")]


class FineTuningJobList(Page):
    """A page of fine-tuning jobs."""

    data: list[FineTuningJob]


class FineTuningEvent(Shape):
    """Something that happened to a fine-tuning job."""

    id: str
    object: Literal["fine_tuning.job.event"]
    created_at: UnixSeconds
    level: Literal["info", "warn", "error"]
    message: str
    type: Literal["message", "metrics"]
    data: dict[str, Any]


class FineTuningEventList(Page):
    """A page of events."""

    data: list[FineTuningEvent]


class FineTuningCheckpoint(Shape):
    """A checkpoint that can be asked by name."""

    id: str
    object: Literal["fine_tuning.job.checkpoint"]
    created_at: UnixSeconds
    fine_tuned_model_checkpoint: str
    fine_tuning_job_id: str
    step_number: int
    metrics: dict[str, float | None]
    best: bool
    bytes: int


class FineTuningCheckpointList(Page):
    """A page of checkpoints."""

    data: list[FineTuningCheckpoint]


class FineTuningMetrics(Shape):
    """The numbers of one step; null is one that was not finite."""

    id: str
    object: Literal["fine_tuning.job.metrics"]
    step: int
    epoch: float
    values: dict[str, float | None]
    created_at: UnixSeconds


class FineTuningMetricsList(Page):
    """A page of numbers."""

    data: list[FineTuningMetrics]
