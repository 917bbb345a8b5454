"""How right a classifier is on a file of examples, read as its engine reads its outputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from worker.engines.classifying import as_numbers, log_softmax, longest_input, padding_token
from worker.engines.entities import OUTSIDE, TagReader, as_bio, first_pieces, joined
from worker.recipes import classification_reports as reports
from worker.recipes.entity_scores import EntityCounts, kinds_of
from worker.recipes.measuring_models import Asked
from worker.recipes.shape import RecipeError
from worker.recipes.token_batches import parts_by_size

TOKENS_AT_ONCE = 8192
Rows = Sequence[dict[str, Any]]
Measured = tuple[dict[str, float], int]


def measure_labels(asked: Asked, rows: Rows, done: Callable[[float], object]) -> Measured:
    """``accuracy``, ``macro_f1`` and ``loss`` of rows ``{"text", "label"}``; and how many tokens
    were read."""
    labels = labels_of(asked)
    numbers = {label: number for number, label in enumerate(labels)}
    _check_known({row["label"] for row in rows} - numbers.keys(), asked)
    truth = [numbers[row["label"]] for row in rows]
    tokens = tokenised(asked, [row["text"] for row in rows])
    confusion = [[0] * len(labels) for _ in labels]
    loss = 0.0
    for part in parts_by_size(range(len(tokens)), [len(t) for t in tokens], TOKENS_AT_ONCE):
        logits = logits_of(asked, [tokens[row] for row in part])
        wanted = torch.tensor([truth[row] for row in part], device=logits.device)
        loss += float(functional.cross_entropy(logits, wanted, reduction="sum"))
        for true, said in zip(wanted.tolist(), logits.argmax(-1).tolist(), strict=True):
            confusion[true][said] += 1
        done(len(part))
    values = {
        "macro_f1": reports.macro_f1(labels, confusion),
        "accuracy": reports.accuracy(confusion),
        "loss": loss / max(1, len(rows)),
    }
    return values, sum(map(len, tokens))


def measure_entities(asked: Asked, rows: Rows, done: Callable[[float], object]) -> Measured:
    """Precision, recall and F1 over whole entities, and the share of words whose tag is right, of
    rows ``{"tokens", "tags"}``; and how many tokens were read."""
    labels = labels_of(asked)
    tags = [as_bio(row["tags"]) for row in rows]
    _check_known({tag for each in tags for tag in each} - set(labels), asked)
    texts = [joined(row["tokens"]) for row in rows]
    read = asked.loaded.tokenizer(
        [text for text, _ in texts],
        truncation=True,
        max_length=longest_input(asked.config, asked.loaded.tokenizer),
        return_offsets_mapping=True,
    )
    tokens: list[list[int]] = read["input_ids"]
    firsts = [
        first_pieces(spans, offsets)
        for (_, spans), offsets in zip(texts, read["offset_mapping"], strict=True)
    ]
    counts, sums = EntityCounts(kinds_of(labels)), _Words(labels)
    for part in parts_by_size(range(len(rows)), [len(t) for t in tokens], TOKENS_AT_ONCE):
        logits = logits_of(asked, [tokens[row] for row in part])
        for row, scores in zip(part, logits, strict=True):
            counts.add(sums.add(scores, firsts[row], tags[row]), tags[row])
        done(len(part))
    overall = counts.overall()
    values = {
        "entity_f1": overall.f1,
        "entity_precision": overall.precision,
        "entity_recall": overall.recall,
        "word_accuracy": sums.right / max(1, sums.words),
        "loss": sums.loss / max(1, sums.pieces),
    }
    return values, sum(map(len, tokens))


class _Words:
    """Adds up what is said of words; those that were cut off count as outside."""

    def __init__(self, labels: list[str]) -> None:
        self._reader = TagReader(labels)
        self._numbers = {label: number for number, label in enumerate(labels)}
        self.right = self.words = self.pieces = 0
        self.loss = 0.0

    def add(self, scores: Tensor, firsts: list[int | None], tags: Sequence[str]) -> list[str]:
        """The tags of one sentence, of its logits (pieces, labels)."""
        known = [first for first in firsts if first is not None]
        truth = [
            self._numbers[tag] for first, tag in zip(firsts, tags, strict=True) if first is not None
        ]
        if known:
            wanted = torch.tensor(truth, device=scores.device)
            self.loss += float(functional.cross_entropy(scores[known], wanted, reduction="sum"))
            self.pieces += len(known)
        told = iter(self._reader.tags(log_softmax(as_numbers(scores))[known]) if known else [])
        said = [OUTSIDE if first is None else next(told) for first in firsts]
        self.words += len(tags)
        self.right += sum(a == b for a, b in zip(said, tags, strict=True))
        return said


def labels_of(asked: Asked) -> list[str]:
    names: dict[Any, str] = dict(asked.config.id2label or {})
    return [str(names[number]) for number in sorted(names)]


def tokenised(asked: Asked, texts: list[str]) -> list[list[int]]:
    tokenizer = asked.loaded.tokenizer
    longest = longest_input(asked.config, tokenizer)
    found = tokenizer(texts, truncation=True, max_length=longest)["input_ids"]
    return [tokens or [padding_token(asked.config, tokenizer)] for tokens in found]


def logits_of(asked: Asked, rows: list[list[int]]) -> Tensor:
    """(texts, labels) or (texts, tokens, labels), in float32."""
    padding = padding_token(asked.config, asked.loaded.tokenizer)
    asked.config.pad_token_id = padding
    longest, device = max(map(len, rows)), asked.loaded.device
    ids = [[*row, *[padding] * (longest - len(row))] for row in rows]
    mask = [[1] * len(row) + [0] * (longest - len(row)) for row in rows]
    inputs = {
        "input_ids": torch.tensor(ids, device=device),
        "attention_mask": torch.tensor(mask, device=device),
    }
    logits: Tensor = asked(**inputs).logits
    return logits.float()


def _check_known(unknown: set[str], asked: Asked) -> None:
    if unknown:
        message = f"{len(unknown)} labels of the file are none that '{asked.name}' knows"
        raise RecipeError("unknown_label", message, "data", "training_file")
