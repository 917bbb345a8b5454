"""What a language model is worth on a file of examples: its loss, and how near its answers come."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from worker.engines.scheduling import model_context
from worker.recipes.answers import Answers
from worker.recipes.measuring_models import Asked
from worker.recipes.text_scores import scores
from worker.recipes.texts import Encoder, cut
from worker.recipes.token_batches import padded, parts_by_size, token_loss
from worker.tuning.messages import Plan

TOKENS_AT_ONCE = 4096
_MOST_NATS = 100.0
Rows = Sequence[dict[str, Any]]


def measure_texts(
    asked: Asked, rows: Rows, done: Callable[[float], object]
) -> tuple[dict[str, float], int]:
    """``loss`` a token of what is to be said, in nats, ``perplexity`` and ``token_accuracy``; and
    how many tokens were read. Texts longer than the model reads are cut."""
    encoder = Encoder(asked.loaded.tokenizer)
    limit = model_context(asked.config)
    examples = [cut(encoder.encode(as_conversation(row)), limit) for row in rows]
    lengths = [len(example) for example in examples]
    pad = int(asked.loaded.tokenizer.pad_token_id or 0)
    loss = right = trained = 0.0
    for part in parts_by_size(range(len(examples)), lengths, TOKENS_AT_ONCE):
        batch = padded([examples[row] for row in part], pad, asked.loaded.device)
        model: Any = asked
        found = token_loss(model, batch)
        loss += float(found.total)
        right += float(found.right)
        trained += found.trained
        done(len(part))
    mean = loss / max(1.0, trained)
    values = {
        "loss": mean,
        "perplexity": math.exp(min(mean, _MOST_NATS)) if math.isfinite(mean) else math.nan,
        "token_accuracy": right / max(1.0, trained),
    }
    return values, sum(lengths)


def measure_answers(asked: Asked, rows: Rows, plan: Plan, folder: Path) -> dict[str, float]:
    """BLEU, ROUGE and the share that is exact, of greedy answers to the rows; nothing for plain
    texts, which ask for no answer."""
    from worker.recipes.reporting import Reporter
    from worker.recipes.story import make_context

    context = make_context(folder, plan, Reporter(folder))
    given = [as_conversation(row) for row in rows]
    encoder = Encoder(asked.loaded.tokenizer)
    answers = Answers(context, asked, encoder, given)
    with torch.no_grad():
        texts = answers.ask()
    if not texts:
        return {}
    return scores(texts, answers.wanted)


def as_conversation(row: dict[str, Any]) -> dict[str, Any]:
    """A pair of answers as the better one, of which the prompt is not counted."""
    if "chosen" not in row:
        return row
    asked = [{**message, "weight": 0} for message in row["prompt"]]
    return {"messages": [*asked, *row["chosen"]]}
