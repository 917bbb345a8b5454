"""What may be asked of models that are there: to be measured, and to be made smaller."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

MOST_MODELS = 8
MOST_EXAMPLES = 100_000
DEFAULT_MAX_DROP = 0.02
DEFAULT_AMOUNT = 0.3

Direction = Literal["min", "max"]
ModelName = Annotated[str, Field(min_length=1, max_length=256)]
FileId = Annotated[str, Field(min_length=1, max_length=64)]
MetricName = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]{0,63}$")]

_OF_ANSWERS: dict[str, Direction] = {
    "bleu": "max",
    "rouge1": "max",
    "rouge2": "max",
    "rougeL": "max",
    "exact": "max",
}
METRICS: dict[str, dict[str, Direction]] = {
    "supervised": {"loss": "min", "perplexity": "min", "token_accuracy": "max", **_OF_ANSWERS},
    "text_classification": {"macro_f1": "max", "accuracy": "max", "loss": "min"},
    "token_classification": {
        "entity_f1": "max",
        "entity_precision": "max",
        "entity_recall": "max",
        "word_accuracy": "max",
        "loss": "min",
    },
}
"""What an evaluation of each recipe's models measures, and which way is better; the first of each
is looked at where nobody names one."""
TEXTS: frozenset[str] = frozenset({"text", "fake"})
"""Engines of models that write."""
ANSWERED: frozenset[str] = frozenset(_OF_ANSWERS)
"""Metrics for which the model has to write; the others are measured in one pass over the file."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True, allow_inf_nan=False)


class EvaluationSpec(_Part):
    """The body of ``POST /v1/evaluations``."""

    models: Annotated[list[ModelName], Field(min_length=1, max_length=MOST_MODELS)]
    file: FileId
    """Examples in the formats of fine-tuning data."""
    metric: MetricName
    """The one that ``best`` goes by; all others that the file allows are measured too."""
    direction: Direction | None = None
    """Whether less or more of it is better; the metric's own, when left out."""
    max_examples: Annotated[int, Field(ge=1, le=MOST_EXAMPLES)] | None = None
    """Only the first so many."""

    @field_validator("models")
    @classmethod
    def _each_once(cls, models: list[str]) -> list[str]:
        if len(set(models)) < len(models):
            raise ValueError("a model is named twice")
        return models

    @property
    def goes_up(self) -> bool:
        """Whether more of the metric is better."""
        return (self.direction or direction_of(self.metric) or "min") == "max"


class Merge(_Part):
    """An adapter's updates added to its base's weights: a model of its own."""

    type: Literal["merge"]


class Quantize(_Part):
    """Weights of linear layers in 8 or 4 bits, computed with as they are."""

    type: Literal["quantize"]
    scheme: Literal["int8", "int4"] = "int8"


class Prune(_Part):
    """The smallest weights set to zero, or the least used parts of layers cut out."""

    type: Literal["prune"]
    amount: Annotated[float, Field(gt=0, lt=1)] = DEFAULT_AMOUNT
    """Of the weights of linear layers; structured: of the channels between an MLP's layers."""
    structure: Literal["unstructured", "structured"] = "unstructured"


OptimizationMethod = Annotated[Merge | Quantize | Prune, Field(discriminator="type")]


class OptimizationSpec(_Part):
    """The body of ``POST /v1/models/{id}/optimize``."""

    method: OptimizationMethod
    evaluation_file: FileId | None = None
    """Examples to compare by; the validation split of the model's own fine-tuning, if there is
    one."""
    metric: MetricName | None = None
    """What must not get worse; ``loss`` of texts, ``macro_f1`` or ``entity_f1`` of classifiers."""
    max_drop: Annotated[float, Field(ge=0, le=10)] = DEFAULT_MAX_DROP
    """By how large a part of its value before the metric may get worse."""
    max_examples: Annotated[int, Field(ge=1, le=MOST_EXAMPLES)] | None = None
    suffix: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")] | None = None
    """The last part of the new model's name; what the method is called, when left out."""


def evaluations_of(engine: str, made_by: str | None) -> list[str]:
    """By which recipes' evaluations a model may be measured: of a classifier that no recipe of
    ours made, only its files tell which. Empty for a model that can't be."""
    if engine in TEXTS:
        return ["supervised"]
    if engine != "classifier":
        return []
    return [made_by] if made_by in METRICS else ["text_classification", "token_classification"]


def metric_of(recipe: str, asked: str | None) -> tuple[str, bool]:
    """What a model is judged by, and whether more of it is better."""
    metric = asked or next(iter(METRICS[recipe]))
    return metric, METRICS[recipe][metric] == "max"


def direction_of(metric: str) -> Direction | None:
    """Which way the metric gets better; None for one that nothing measures."""
    for known in METRICS.values():
        if metric in known:
            return known[metric]
    return None


def label_of(method: Merge | Quantize | Prune) -> str:
    """What the method is called in names of models: ``merged``, ``int8``, ``pruned30s``."""
    match method:
        case Merge():
            return "merged"
        case Quantize():
            return method.scheme
        case Prune():
            return f"pruned{method.amount * 100:g}{'s' if method.structure == 'structured' else ''}"
