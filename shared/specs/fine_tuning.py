"""What a fine-tuning job may be asked for, in OpenAI's words and, beyond them, in ours."""

from __future__ import annotations

import hashlib
from typing import Annotated, Literal

from pydantic import Field, model_validator

from shared.specs.parts import MetricName, Part
from shared.specs.sweeps import Sweep

MAX_EPOCHS = 50
MIN_EXAMPLES = 10
MAX_EVERY_STEPS = 1_000_000_000

RecipeName = Literal[
    "supervised",
    "dpo",
    "text_classification",
    "token_classification",
    "text_to_image",
    "diffusion",
    "gan",
    "vae",
]
FROM_SCRATCH: frozenset[str] = frozenset({"diffusion", "gan", "vae"})
"""Recipes that may start without a base model: ``model`` is then the recipe's own name."""

Auto = Literal["auto"]
Rate = Annotated[float, Field(gt=0, le=1)]
ModuleName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,200}$")]


class Hyperparameters(Part):
    """How a recipe trains. ``"auto"`` is decided by ``worker.recipes.auto`` once data and model
    are known; what was chosen is shown on the job."""

    n_epochs: Annotated[int, Field(ge=1, le=MAX_EPOCHS)] | Auto = "auto"
    batch_size: Annotated[int, Field(ge=1, le=1024)] | Auto = "auto"
    """Examples a step, over all processes and accumulation."""
    learning_rate_multiplier: Annotated[float, Field(gt=0, le=100)] | Auto = "auto"
    """Times the recipe's own rate; not together with ``learning_rate``."""
    learning_rate: Rate | Auto = "auto"
    lr_schedule: Literal["constant", "linear", "cosine"] = "cosine"
    warmup_ratio: Annotated[float, Field(ge=0, le=0.5)] = 0.05
    weight_decay: Annotated[float, Field(ge=0, le=1)] = 0.0
    gradient_accumulation: Annotated[int, Field(ge=1, le=256)] = 1
    max_grad_norm: Annotated[float, Field(gt=0, le=100)] = 1.0
    max_steps: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    """Ends the training early, whatever ``n_epochs`` says."""
    max_length: Annotated[int, Field(ge=8, le=131_072)] | Auto = "auto"
    """Tokens of an example; longer ones are cut."""
    packing: bool = False
    """Several short texts in one row of a microbatch."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    beta: Annotated[float, Field(gt=0, le=10)] | Auto = "auto"
    """Of DPO: how closely the model stays to its base."""
    image_size: Annotated[int, Field(ge=8, le=1024)] | Auto = "auto"
    """Pixels a side, of recipes that draw."""

    @model_validator(mode="after")
    def _one_rate(self) -> Hyperparameters:
        if self.learning_rate != "auto" and self.learning_rate_multiplier != "auto":
            raise ValueError("give only one of learning_rate and learning_rate_multiplier")
        return self


class Lora(Part):
    """Sizes of an adapter."""

    rank: Annotated[int, Field(ge=1, le=512)] = 16
    alpha: Annotated[float, Field(gt=0, le=2048)] = 32.0
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    target_modules: Annotated[list[ModuleName], Field(min_length=1, max_length=64)] | None = None
    """Names of linear layers; every one that the recipe knows of, when left out."""


class EarlyStopping(Part):
    """Ends a training that no longer gets better; the best checkpoint is what is delivered."""

    metric: MetricName = "valid_loss"
    mode: Literal["min", "max"] = "min"
    patience: Annotated[int, Field(ge=1, le=1000)] = 3
    """Evaluations without a better value."""
    min_delta: Annotated[float, Field(ge=0)] = 0.0


class Checkpoints(Part):
    """How often a training can be resumed from."""

    every_steps: Annotated[int, Field(ge=1, le=MAX_EVERY_STEPS)] | None = None
    every_minutes: Annotated[float, Field(ge=0.05, le=1440)] = 10.0
    """Used when ``every_steps`` is left out."""


class Evaluation(Part):
    every_steps: Annotated[int, Field(ge=1, le=MAX_EVERY_STEPS)] | Auto = "auto"
    """Between looks at the validation split; ``"auto"``: ten in a training."""
    generate: Annotated[int, Field(ge=0, le=1000)] = 32
    """Validation examples that are answered before and after, for BLEU and ROUGE."""


class RecipeOptions(Part):
    """Everything that a method says about its training."""

    hyperparameters: Hyperparameters = Field(default_factory=Hyperparameters)
    adapter: Literal["auto", "lora", "none"] = "auto"
    """``none`` trains all weights; ``auto``: an adapter wherever the recipe has one."""
    lora: Lora = Field(default_factory=Lora)


class Method(Part):
    """``{"type": "dpo", "dpo": {"hyperparameters": {…}}}``."""

    type: RecipeName = "supervised"
    supervised: RecipeOptions | None = None
    dpo: RecipeOptions | None = None
    text_classification: RecipeOptions | None = None
    token_classification: RecipeOptions | None = None
    text_to_image: RecipeOptions | None = None
    diffusion: RecipeOptions | None = None
    gan: RecipeOptions | None = None
    vae: RecipeOptions | None = None

    @model_validator(mode="after")
    def _options_of_the_type(self) -> Method:
        for name in type(self).model_fields:
            if name not in ("type", self.type) and getattr(self, name) is not None:
                raise ValueError(f"'{name}' is given, but the type is '{self.type}'")
        return self

    @property
    def options(self) -> RecipeOptions:
        chosen: RecipeOptions | None = getattr(self, self.type)
        return chosen or RecipeOptions()


class Wandb(Part):
    project: Annotated[str, Field(min_length=1, max_length=128)]
    name: Annotated[str, Field(max_length=128)] | None = None
    entity: Annotated[str, Field(max_length=128)] | None = None
    tags: Annotated[list[Annotated[str, Field(max_length=128)]], Field(max_length=50)] = []


class Integration(Part):
    """A tracker that hears the metrics too, where the worker has it installed."""

    type: Literal["wandb", "mlflow", "tensorboard"]
    wandb: Wandb | None = None


class FineTuningSpec(Part):
    """The body of ``POST /v1/fine_tuning/jobs``."""

    model: Annotated[str, Field(min_length=1, max_length=256)]
    training_file: Annotated[str, Field(min_length=1, max_length=64)]
    validation_file: Annotated[str, Field(min_length=1, max_length=64)] | None = None
    validation_split: Annotated[float, Field(gt=0, le=0.5)] = 0.1
    """The share of the training file that is held out when there is no ``validation_file``."""
    method: Method = Field(default_factory=Method)
    hyperparameters: Hyperparameters | None = None
    """The older place for them: used where ``method`` has none."""
    suffix: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")] | None = None
    seed: Annotated[int, Field(ge=0, lt=2**31)] | None = None
    metadata: dict[str, str] | None = None
    integrations: Annotated[list[Integration], Field(max_length=3)] = []
    early_stopping: EarlyStopping | None = None
    checkpoints: Checkpoints = Field(default_factory=Checkpoints)
    evaluation: Evaluation = Field(default_factory=Evaluation)
    sweep: Sweep | None = None
    """Searches for hyperparameters: many trainings instead of one, of which the best counts."""
    processes: Annotated[int, Field(ge=1, le=64)] = 1
    """Training processes, one for each GPU; on CPUs as many as one likes."""
    dry_run: bool = False
    """Only look at the data and say what the training would take."""
    priority: Annotated[int, Field(ge=-100, le=100)] = 0

    @property
    def recipe(self) -> RecipeName:
        return self.method.type

    @property
    def options(self) -> RecipeOptions:
        """Of the chosen method, with the older ``hyperparameters`` filled in."""
        given = getattr(self.method, self.method.type)
        if given is None and self.hyperparameters is not None:
            return RecipeOptions(hyperparameters=self.hyperparameters)
        return self.method.options


def seed_of(spec: FineTuningSpec, job_id: str) -> int:
    """The same on every attempt, whether or not one was given."""
    if spec.seed is not None:
        return spec.seed
    return int.from_bytes(hashlib.sha256(job_id.encode()).digest()[:4]) & 0x7FFF_FFFF
