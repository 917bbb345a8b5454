"""The keys of a template's head, as they are after reading."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator

from shared.specs.common import MAX_CHOICES, MAX_NEW_TOKENS

MOST_EXAMPLES = 32
MOST_STEPS = 8
MOST_AUDIENCES = 100
MOST_MODELS = 8
MOST_RETRIES = 5
MOST_PHRASES = 100
MOST_FILES = 16
LEAST_SIMILARITY = 0.5
"""Below it nearly everything is a near-duplicate of something."""
AUDIENCE_LIST, AUDIENCE_FILE = "<list>", "<file>"
"""What pydantic calls the two ways to give audiences, in the paths of its errors."""
LABEL_COUNTS = "<counts>"
"""How many of each label, beside a list of labels; the same for them."""
EMBEDDING_MODEL = "all-minilm-l6-v2"
AUGMENT = "augment"
"""The task whose data are examples, and whose output is a training file."""
MOST_LABELS = 1_000
MOST_SYNTHETIC = 1_000_000

Name = Annotated[str, Field(min_length=1, max_length=256)]
Prompt = Annotated[str, Field(min_length=1, max_length=200_000)]
Phrase = Annotated[str, Field(min_length=1, max_length=500)]
Count = Annotated[int, Field(ge=0, le=1_000_000)]
Cells = dict[Annotated[str, Field(min_length=1, max_length=200)], Any]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, defer_build=True)


class Example(_Part):
    """A row and the text that is wanted for it."""

    input: Cells
    output: Annotated[str, Field(min_length=1, max_length=100_000)]
    sources: Annotated[list[Prompt], Field(max_length=16)] = []
    """Passages that the output rests on, instead of those of the row that it is shown to."""
    audience: Cells | None = None
    """Whom the output is for, instead of that row's."""


class ExamplesFrom(_Part):
    """A JSONL file of examples, of which each row gets the ``n`` most alike."""

    file: Name
    n: Annotated[int, Field(ge=1, le=16)] = 3
    model: Name = EMBEDDING_MODEL


class BestOf(_Part):
    """Which candidate of an item is kept: by a rule, or by a classifier's score for ``label``."""

    rule: Literal["longest", "shortest", "closest_to", "first", "likeliest"] | None = None
    words: Annotated[int, Field(ge=1, le=100_000)] | None = None
    model: Name | None = None
    label: Name | None = None

    @property
    def asks_model(self) -> bool:
        """Whether the model that writes says how likely its texts are."""
        return self.rule == "likeliest"

    @model_validator(mode="after")
    def _one_way(self) -> BestOf:
        if (self.rule is None) == (self.model is None):
            raise ValueError("give either 'rule' or 'model'")
        if (self.words is not None) != (self.rule == "closest_to"):
            raise ValueError("'words' goes with the rule 'closest_to'")
        if (self.label is not None) != (self.model is not None):
            raise ValueError("'label' goes with 'model'")
        return self


class GateRules(_Part):
    """What a text must be to be kept."""

    min_words: Count | None = None
    max_words: Count | None = None
    min_chars: Count | None = None
    max_chars: Count | None = None
    required: Annotated[list[Phrase], Field(max_length=MOST_PHRASES)] = []
    forbidden: Annotated[list[Phrase], Field(max_length=MOST_PHRASES)] = []
    language: Annotated[str, Field(pattern=r"^[a-z]{2,3}$")] | None = None
    near_duplicates: Annotated[float, Field(ge=LEAST_SIMILARITY, le=1)] | None = None
    cites_sources: bool = False
    known_numbers: bool = False
    finished: bool = False

    @model_validator(mode="after")
    def _possible(self) -> GateRules:
        for least, most, what in (
            (self.min_words, self.max_words, "words"),
            (self.min_chars, self.max_chars, "chars"),
        ):
            if least is not None and most is not None and least > most:
                raise ValueError(f"'min_{what}' is over 'max_{what}'")
        return self


class Sampling(_Part):
    """What is sent along with every prompt."""

    max_tokens: Annotated[int, Field(ge=1, le=MAX_NEW_TOKENS)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    seed: Annotated[int, Field(ge=0, lt=2**63)] | None = None


class Step(_Part):
    """A text that is generated first, and that later prompts may use by the step's name."""

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,63}$")]
    prompt: Prompt
    system: Prompt | None = None
    model: Name | None = None
    json_schema: Annotated[dict[str, Any] | None, Field(alias="schema")] = None
    sampling: Sampling | None = None


class AudienceFile(_Part):
    """A table (CSV, JSONL or Parquet) with a column ``name``."""

    file: Name


def _audiences_as(value: Any) -> str:
    return AUDIENCE_LIST if isinstance(value, list) else AUDIENCE_FILE


def _labels_as(value: Any) -> str:
    return AUDIENCE_LIST if isinstance(value, list) else LABEL_COUNTS


class Documents(_Part):
    """What is looked up for each item."""

    files: Annotated[list[Name], Field(min_length=1, max_length=MOST_FILES)]
    query: Prompt
    n: Annotated[int, Field(ge=1, le=32)] = 4
    model: Name = EMBEDDING_MODEL
    min_score: Annotated[float, Field(ge=-1, le=1)] = 0.35
    not_found: Prompt = "not found"


class Task(_Part):
    """A preset, and what it is told. Texts may use columns."""

    name: Literal[
        "summary", "translation", "dialogue", "headline", "ad_copy", "social_post", "augment"
    ]
    columns: Annotated[list[Name], Field(min_length=1, max_length=64)] | None = None
    language: Phrase | None = None
    tone: Phrase | None = None
    words: Annotated[int, Field(ge=1, le=10_000)] | None = None
    turns: Annotated[int, Field(ge=2, le=50)] | None = None
    history: Name | None = None
    """The column with what was said so far: a dialogue's next reply is written then."""
    form: Literal["classification", "chat", "text"] | None = None
    rows: Annotated[int, Field(ge=1, le=MOST_SYNTHETIC)] | None = None
    labels: (
        Annotated[
            Annotated[list[Name], Field(min_length=1, max_length=MOST_LABELS), Tag(AUDIENCE_LIST)]
            | Annotated[
                dict[Name, Annotated[int, Field(ge=0, le=MOST_SYNTHETIC)]],
                Field(min_length=1, max_length=MOST_LABELS),
                Tag(LABEL_COUNTS),
            ],
            Discriminator(_labels_as),
        ]
        | None
    ) = None
    examples: Annotated[int, Field(ge=1, le=32)] | None = None
    hints: bool | None = None

    @model_validator(mode="after")
    def _labels_once(self) -> Task:
        if isinstance(self.labels, list) and len(set(self.labels)) < len(self.labels):
            raise ValueError("'labels' names a label twice")
        return self


class TemplateHead(_Part):
    """Everything above the body. Unknown keys are refused by name."""

    system: Prompt | None = None
    examples: Annotated[list[Example], Field(max_length=MOST_EXAMPLES)] = []
    examples_from: ExamplesFrom | None = None
    model: Name | None = None
    models: Annotated[list[Name], Field(min_length=1, max_length=MOST_MODELS)] | None = None
    n: Annotated[int, Field(ge=1, le=MAX_CHOICES)] = 1
    best_of: BestOf | None = None
    json_schema: Annotated[dict[str, Any] | None, Field(alias="schema")] = None
    gates: GateRules = GateRules()
    retries: Annotated[int, Field(ge=0, le=MOST_RETRIES)] = 2
    sampling: Sampling = Sampling()
    steps: Annotated[list[Step], Field(max_length=MOST_STEPS)] = []
    audiences: (
        Annotated[
            Annotated[
                list[Cells], Field(min_length=1, max_length=MOST_AUDIENCES), Tag(AUDIENCE_LIST)
            ]
            | Annotated[AudienceFile, Tag(AUDIENCE_FILE)],
            Discriminator(_audiences_as),
        ]
        | None
    ) = None
    documents: Documents | None = None
    task: Task | None = None

    @model_validator(mode="before")
    @classmethod
    def _task_by_name(cls, data: Any) -> Any:
        """``task: summary`` is short for ``task: {name: summary}``."""
        if isinstance(data, dict) and isinstance(data.get("task"), str):
            return data | {"task": {"name": data["task"]}}
        return data

    @model_validator(mode="after")
    def _one_naming(self) -> TemplateHead:
        if self.model is not None and self.models is not None:
            raise ValueError("give only one of 'model' and 'models'")
        if self.models is not None and len(set(self.models)) < len(self.models):
            raise ValueError("'models' names a model twice")
        return self
