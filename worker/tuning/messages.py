"""What a supervisor and a training tell one another: a folder, a plan, and lines of JSON.

A training's first process (rank 0) appends its messages to ``messages.jsonl``, a line each, which
the supervisor reads as they come: nothing can block it, and nothing is lost when either dies. The
supervisor speaks by one file: once ``stop`` is there, the training saves a checkpoint, says so and
exits. Nothing is ever unpickled, and no credential enters the folder.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

PLAN, MESSAGES, STOP, LOG = "plan.json", "messages.jsonl", "stop", "training.log"
CHECKPOINTS, RESULT, DATA = "checkpoints", "result", "data"
TRAIN_DATA, VALIDATION_DATA = "train.jsonl", "validation.jsonl"


class Subject(msgspec.Struct, frozen=True, kw_only=True):
    """A model that is to be measured, or made smaller, as it is served."""

    name: str
    """The public one."""
    engine: str
    """That serves it: ``text`` or ``classifier``."""
    source: str
    """A local directory or a hub id."""
    adapter: str = ""
    """A local directory of an adapter that is loaded beside it."""
    settings: dict[str, Any] = {}
    """Of the catalog, for the engine."""


class Optimization(msgspec.Struct, frozen=True, kw_only=True):
    """How a model is made smaller, and what is too much."""

    method: dict[str, Any]
    """As ``shared.specs.model_jobs.OptimizationSpec.method``."""
    max_drop: float


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a training must know; ``plan.json`` in its folder."""

    recipe: str
    """A name in ``worker.recipes.registry``."""
    model: str
    """The name of the model that is to be made, for reports."""
    base: str = ""
    """A local directory or a hub id of the base model; empty for a recipe that starts from none."""
    base_adapter: str = ""
    """A local directory of an adapter on ``base``: what is tuned is that adapter."""
    base_model: str = ""
    """The base model's public name."""
    adapter: str = "auto"
    """``lora``, ``none`` or ``auto``."""
    lora: dict[str, Any] = {}
    """As ``shared.specs.fine_tuning.Lora``."""
    hyperparameters: dict[str, Any] = {}
    """As ``shared.specs.fine_tuning.Hyperparameters``, ``"auto"`` included."""
    early_stopping: dict[str, Any] | None = None
    checkpoint_steps: int | None = None
    checkpoint_minutes: float = 10.0
    evaluate_steps: int | None = None
    """None: ten times in the whole training."""
    generate: int = 32
    trackers: list[dict[str, Any]] = []
    seed: int = 0
    processes: int = 1
    resume: str = ""
    """A local directory of a checkpoint to go on from."""
    labels: list[str] = []
    """Of classifiers and class-conditional recipes: every label of the data, sorted."""
    subjects: list[Subject] = []
    """Of recipes that train nothing: the models that they look at."""
    measured_as: str = ""
    """… by the evaluation of this recipe, on the validation split"""
    metric: str = ""
    """… and by which of its numbers, as ``shared.specs.model_jobs.METRICS`` calls them."""
    goes_up: bool = False
    """Whether more of that is better."""
    optimization: Optimization | None = None


# --- training -> supervisor -----------------------------------------------------------------


class Message(msgspec.Struct, frozen=True, tag=True):
    """Base of all messages."""


class Started(Message, frozen=True):
    """Model and data are loaded; steps begin."""

    steps: int
    """Optimizer steps of the whole training."""
    step: int = 0
    """Steps that were done before, when it resumes."""
    hyperparameters: dict[str, Any] = {}
    """With every ``"auto"`` decided."""
    detail: dict[str, Any] = {}
    """device, dtype, parameters, trainable, processes, …"""
    engine: str = ""
    """Which engine serves its checkpoints, and the model in the end: ``text``, ``classifier``,
    ``image``, ``sampler``."""
    adapter: bool = False
    """Whether what is delivered is an adapter on the base model."""
    settings: dict[str, Any] = {}
    """For the catalog entry of what is delivered."""


class Metrics(Message, frozen=True):
    """Numbers of a step: ``train_loss``, ``learning_rate``, ``grad_norm``, ``tokens_per_second`` or
    ``examples_per_second``, ``memory_bytes``, ``eta_seconds``; ``valid_loss`` and what else the
    recipe measures after an evaluation. Names are the recipes' own, in snake case."""

    step: int
    values: dict[str, float]
    epoch: float = 0.0


class Progressed(Message, frozen=True):
    """So many of the steps are done, of work that has no numbers to tell on its way."""

    step: int


class Saved(Message, frozen=True):
    """A checkpoint is complete in ``folder``: ``model/`` holds what an engine can serve, the other
    files what the training goes on from."""

    step: int
    folder: str
    metrics: dict[str, float] = {}
    """The newest evaluation's."""
    best: bool = False
    """Better than every one before, by the metric of early stopping or ``valid_loss``."""


class Note(Message, frozen=True):
    """Something worth telling the tenant: ``early stopping at step 80``."""

    text: str
    level: str = "info"
    """info, warn or error"""


class ResultFile(msgspec.Struct, frozen=True):
    """A file below ``result/files`` that the tenant gets: ``report.md``, ``metrics.csv``."""

    path: str
    """Relative to that folder."""
    media_type: str


class Finished(Message, frozen=True):
    """Done: the model's files are in ``result/model``, the others in ``result/files``."""

    step: int
    """The step that the delivered weights are of."""
    files: list[ResultFile]
    metrics: dict[str, Any] = {}
    """``{"before": {…}, "after": {…}}`` and whatever the recipe measured."""
    trained_tokens: int = 0


class Stopped(Message, frozen=True):
    """It was asked to stop; its last ``Saved`` came just before."""

    step: int


class Failed(Message, frozen=True):
    """It cannot go on. ``code`` is stable; ``blame`` says whose fault: ``data`` and ``request`` are
    the tenant's (the job fails), ``engine`` is ours (it is tried again)."""

    code: str
    message: str
    blame: str = "engine"
    param: str | None = None


FromTraining = Started | Metrics | Progressed | Saved | Note | Finished | Stopped | Failed

_encoder = msgspec.json.Encoder()
_plans: msgspec.json.Decoder[Plan] = msgspec.json.Decoder(Plan)
_messages: msgspec.json.Decoder[FromTraining] = msgspec.json.Decoder(FromTraining)


def write_plan(folder: Path, plan: Plan) -> None:
    (folder / PLAN).write_bytes(_encoder.encode(plan))


def read_plan(folder: Path) -> Plan:
    return _plans.decode((folder / PLAN).read_bytes())


def encode(message: FromTraining) -> bytes:
    """One line."""
    return _encoder.encode(message) + b"\n"


def decode(line: bytes) -> FromTraining:
    """Raises msgspec.ValidationError or DecodeError."""
    return _messages.decode(line)
