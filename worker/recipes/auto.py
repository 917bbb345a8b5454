"""What ``"auto"`` means: every rule in one table, decided from the data and the model.

Torch-free: estimates of the data stage use the same rules.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any


@dataclass(frozen=True, slots=True)
class Defaults:
    """Of one recipe."""

    seen: int
    """Examples that a training should see in all: epochs are as many as that takes …"""
    epochs: tuple[int, int]
    """… within these."""
    batch: tuple[int, int]
    """The smallest and the largest batch size."""
    learning_rate: float
    """For all weights."""
    adapter_rate: float | None = None
    """For an adapter; None: the recipe has none."""
    full_below: int = 0
    """Parameters below which ``adapter="auto"`` trains all weights."""
    beta: float | None = None


DEFAULTS: dict[str, Defaults] = {
    "supervised": Defaults(1000, (2, 10), (4, 32), 2e-5, 2e-4),
    "dpo": Defaults(1000, (1, 5), (4, 32), 5e-6, 5e-5, beta=0.1),
    "text_classification": Defaults(4000, (2, 20), (8, 32), 5e-5, 5e-4, full_below=200_000_000),
    "token_classification": Defaults(6000, (3, 20), (8, 32), 1e-4, 5e-4, full_below=200_000_000),
    "text_to_image": Defaults(4000, (2, 50), (4, 16), 1e-5, 1e-4),
    "diffusion": Defaults(60_000, (2, 50), (32, 64), 1e-3),
    "gan": Defaults(40_000, (2, 50), (32, 64), 1e-3),
    "vae": Defaults(40_000, (2, 50), (32, 64), 2e-3),
}
UNKNOWN_RECIPE = Defaults(2000, (2, 10), (4, 32), 1e-4, 1e-4)
LARGE = 1_000_000_000
LENGTH_STEP = 64
EVALUATIONS = 10

RULES: tuple[tuple[str, str], ...] = (
    ("n_epochs", "the recipe's number of examples to see ÷ examples, within the recipe's bounds"),
    ("batch_size", "the power of two nearest to √examples ÷ 2, within the recipe's bounds, at "
     "most the examples there are; a multiple of processes × gradient_accumulation"),
    ("learning_rate", "the recipe's rate (one for adapters, one for all weights); for all weights "
     f"of a model above {LARGE:,} parameters × √({LARGE:,} ÷ parameters)"),
    ("learning_rate_multiplier", "1; what is given multiplies the rate of the line above"),
    ("max_length", f"the 95th percentile of the examples' tokens, rounded up to {LENGTH_STEP}s, at "
     "most what the model can read"),
    ("evaluation.every_steps", f"the steps ÷ {EVALUATIONS}, at least 1, and once at the end"),
    ("checkpoints", "every 10 minutes, and once at the end"),
    ("precision", "bf16 where the device computes it natively, else fp16 on CUDA, else fp32"),
    ("adapter", "lora wherever the recipe has one, except classifiers on models below "
     "200,000,000 parameters: those train all weights"),
)  # fmt: skip
"""For the documentation: what is decided, and how."""


def rules_table() -> str:
    """The rules and every recipe's numbers as Markdown."""
    rules = [f"| `{name}` | {rule} |" for name, rule in RULES]
    recipes = [
        f"| `{name}` | {d.seen:,} | {d.epochs[0]}–{d.epochs[1]} | {d.batch[0]}–{d.batch[1]} "
        f"| {d.learning_rate:g} | {'–' if d.adapter_rate is None else f'{d.adapter_rate:g}'} "
        f"| {'–' if d.beta is None else f'{d.beta:g}'} |"
        for name, d in DEFAULTS.items()
    ]
    head = ["| left at `auto` | becomes |", "|---|---|"]
    columns = (
        "| recipe | examples to see | epochs | batch size | rate, all weights | adapter | beta |"
    )
    return "\n".join([*head, *rules, "", columns, "|---|---:|---:|---:|---:|---:|---:|", *recipes])


@dataclass(frozen=True, slots=True)
class Resolved:
    """Hyperparameters as numbers. ``max_length``, ``image_size`` and ``precision`` are decided by
    the recipe and the device: until then they are None, None and ``"auto"``."""

    n_epochs: int
    batch_size: int
    learning_rate: float
    learning_rate_multiplier: float
    steps: int
    """Updates of the whole training."""
    steps_per_epoch: int
    """Rounded up: epochs follow one another without a gap."""
    evaluate_steps: int
    lr_schedule: str = "cosine"
    warmup_ratio: float = 0.05
    weight_decay: float = 0.0
    gradient_accumulation: int = 1
    max_grad_norm: float = 1.0
    max_steps: int | None = None
    max_length: int | None = None
    packing: bool = False
    precision: str = "auto"
    beta: float | None = None
    image_size: int | None = None
    auto: tuple[str, ...] = ()
    """Names that were left to us."""

    def shown(self) -> dict[str, Any]:
        """For the job and the reports; what does not apply is left out."""
        return {name: value for name, value in asdict(self).items() if value is not None} | {
            "auto": list(self.auto)
        }

    def deciding(self, **values: Any) -> Resolved:
        """With values that only the recipe could decide; those that were given stay."""
        open_ones = {
            name: value for name, value in values.items() if getattr(self, name) in (None, "auto")
        }
        return replace(self, **open_ones)


def resolve(
    given: Mapping[str, Any],
    *,
    recipe: str,
    examples: int,
    adapter: bool,
    parameters: int | None = None,
    processes: int = 1,
    evaluate_steps: int | None = None,
) -> Resolved:
    """``given`` as ``shared.specs.fine_tuning.Hyperparameters``; what it lacks is ``auto`` too."""
    defaults = DEFAULTS.get(recipe, UNKNOWN_RECIPE)
    given = {name: value for name, value in given.items() if value is not None}
    accumulation = int(given.get("gradient_accumulation", 1))
    batch = _batch(given.get("batch_size", "auto"), defaults, examples, processes * accumulation)
    epochs = _chosen(given, "n_epochs", lambda: n_epochs(defaults, examples))
    steps = min(math.ceil(int(epochs) * examples / batch), given.get("max_steps", math.inf))
    rate, multiplier = _rate(given, defaults, adapter, parameters)
    plain = ("lr_schedule", "warmup_ratio", "weight_decay", "max_grad_norm", "max_steps", "packing")
    return Resolved(
        n_epochs=int(epochs),
        batch_size=batch,
        learning_rate=rate,
        learning_rate_multiplier=multiplier,
        steps=max(1, int(steps)),
        steps_per_epoch=max(1, math.ceil(examples / batch)),
        evaluate_steps=evaluate_steps or max(1, round(steps / EVALUATIONS)),
        gradient_accumulation=accumulation,
        precision=given.get("precision", "auto"),
        max_length=_number(given, "max_length"),
        image_size=_number(given, "image_size"),
        beta=_chosen(given, "beta", lambda: defaults.beta),
        auto=tuple(_left_to_us(given, defaults)),
        **{name: given[name] for name in plain if name in given},
    )


def n_epochs(defaults: Defaults, examples: int) -> int:
    low, high = defaults.epochs
    return min(high, max(low, math.ceil(defaults.seen / max(1, examples))))


def batch_size(defaults: Defaults, examples: int) -> int:
    low, high = defaults.batch
    wanted = 1 << round(math.log2(max(1.0, math.sqrt(examples) / 2)))
    return min(high, max(low, wanted))


def max_length(lengths: Sequence[int], model_limit: int) -> int:
    """Of the examples' tokens."""
    ordered = sorted(lengths)
    at = ordered[min(len(ordered) - 1, math.ceil(0.95 * len(ordered)) - 1)] if ordered else 1
    return min(model_limit, math.ceil(max(1, at) / LENGTH_STEP) * LENGTH_STEP)


def takes_adapter(recipe: str, wanted: str, parameters: int | None) -> bool:
    """Whether an adapter is trained, by the plan's ``adapter``: ``lora``, ``none`` or ``auto``."""
    defaults = DEFAULTS.get(recipe, UNKNOWN_RECIPE)
    if defaults.adapter_rate is None or wanted == "none":
        return False
    small = parameters is not None and parameters < defaults.full_below
    return wanted == "lora" or not small


def schedule(kind: str, step: int, steps: int, warmup_ratio: float) -> float:
    """The share of the learning rate at a step from 1: up in a line, then as ``kind`` says."""
    warmup = math.ceil(warmup_ratio * steps)
    if step <= warmup:
        return step / max(1, warmup)
    done = (step - 1 - warmup) / max(1, steps - warmup)
    if kind == "linear":
        return 1.0 - done
    return 0.5 * (1.0 + math.cos(math.pi * done)) if kind == "cosine" else 1.0


def _batch(given: int | str, defaults: Defaults, examples: int, multiple: int) -> int:
    wanted = batch_size(defaults, examples) if given == "auto" else int(given)
    wanted = min(wanted, max(1, examples))
    return max(multiple, round(wanted / multiple) * multiple)


def _rate(
    given: Mapping[str, Any], defaults: Defaults, adapter: bool, parameters: int | None
) -> tuple[float, float]:
    """The learning rate, and how many times the recipe's own it is."""
    own = defaults.learning_rate
    if adapter and defaults.adapter_rate is not None:
        own = defaults.adapter_rate
    elif parameters is not None and parameters > LARGE:
        own *= math.sqrt(LARGE / parameters)
    if given.get("learning_rate", "auto") != "auto":
        return float(given["learning_rate"]), float(given["learning_rate"]) / own
    multiplier = _chosen(given, "learning_rate_multiplier", lambda: 1.0)
    return own * multiplier, float(multiplier)


def _left_to_us(given: Mapping[str, Any], defaults: Defaults) -> list[str]:
    names = ["n_epochs", "batch_size", "max_length", "image_size", "precision"]
    if given.get("learning_rate", "auto") == "auto":
        names.append("learning_rate_multiplier")
    if defaults.beta is not None:
        names.append("beta")
    return [name for name in names if given.get(name, "auto") == "auto"]


def _chosen(given: Mapping[str, Any], name: str, otherwise: Callable[[], Any]) -> Any:
    value = given.get(name, "auto")
    return otherwise() if value == "auto" else value


def _number(given: Mapping[str, Any], name: str) -> int | None:
    value = given.get(name, "auto")
    return None if value == "auto" else int(value)
