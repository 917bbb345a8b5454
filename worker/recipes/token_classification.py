"""Token classification: a label for each word, scored by the entities that the labels spell."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional
from transformers import AutoModelForTokenClassification

from worker.engines.classifying import as_numbers, log_softmax
from worker.engines.entities import OUTSIDE, TagReader, as_bio, first_pieces, joined
from worker.recipes import classification_reports as reports
from worker.recipes.auto import max_length
from worker.recipes.classifier_models import load
from worker.recipes.context import Context
from worker.recipes.entity_scores import EntityCounts, kinds_of, remembering, tag_labels
from worker.recipes.loop import Loop
from worker.recipes.shape import RecipeError, Trained
from worker.recipes.token_batches import parts_by_size

TOKENS_AT_ONCE = 8192
"""Positions of one forward pass; a larger microbatch takes several."""
IGNORED = -100
"""The target of pieces that no word begins with: cross-entropy passes them over."""


@dataclass(frozen=True, slots=True)
class Sentence:
    """Read by a tokenizer: which piece stands for which word."""

    words: list[str]
    tags: list[str]
    tokens: list[int]
    firsts: list[int | None]
    """Of each word its first piece; None for words that were cut off."""
    targets: list[int]
    """Of each piece its label's number, or ``IGNORED``."""


class TokenClassification:
    """Rows are ``{"tokens": […], "tags": […]}``; tags are BIO."""

    engine = "classifier"
    adapter = False  # LoRA's updates are delivered inside the weights

    def __init__(self, context: Context) -> None:
        self._context = context
        self.settings: dict[str, Any] = {}
        self.detail: dict[str, Any] = {}

    def setup(self) -> None:
        context = self._context
        train, validation = context.train_rows(), context.validation_rows()
        self._mend([*train, *validation])
        self._labels = tag_labels(context.plan.labels, [*train, *validation])
        self._numbers = {label: number for number, label in enumerate(self._labels)}
        self._kinds = kinds_of(self._labels)
        self._reader = TagReader(self._labels)
        self._classifier = load(context, AutoModelForTokenClassification, self._labels)
        if not self._classifier.tokenizer.is_fast:
            message = f"the tokenizer of '{context.plan.base_model}' does not say where pieces are"
            raise RecipeError("unsupported_base", message, "request", "model")
        self._train = self._read(train)
        self._lengths = [len(sentence.tokens) for sentence in self._train]
        self._valid = self._read(validation)
        self.detail = self._classifier.detail | {
            "cut_words": sum(sentence.firsts.count(None) for sentence in self._train)
        }

    def trained(self) -> Trained:
        return Trained(
            modules={"model": self._classifier.model},
            optimizers={"model": self._classifier.trainable},
            examples=len(self._train),
            lengths=self._lengths,
        )

    def train(self, loop: Loop) -> None:
        for batch in loop.batches():
            whole = sum(_words_n(self._train[row]) for row in batch.rows)
            for microbatch in batch.microbatches:
                for rows in parts_by_size(microbatch, self._lengths, TOKENS_AT_ONCE):
                    self._learn(loop, [self._train[row] for row in rows], max(1, whole))
            loop.update()

    def _learn(self, loop: Loop, sentences: Sequence[Sentence], whole: int) -> None:
        """One forward pass; ``whole`` are the words of the step."""
        logits, targets = self._outputs(sentences)
        words = max(1, sum(map(_words_n, sentences)))
        loop.backward(_loss(logits, targets) / words, share=words / whole)
        right = (logits.argmax(-1) == targets).sum() / words  # no label is ``IGNORED``
        read = sum(len(sentence.tokens) for sentence in sentences)
        loop.report(train_word_accuracy=right, tokens=read)

    def evaluate(self) -> dict[str, float]:
        """``valid_loss`` and accuracy over words; precision, recall and F1 over whole entities, of
        tags read as they are served."""
        counts = EntityCounts(self._kinds)
        loss = right = words = pieces = 0.0
        mine = self._valid[self._context.rank :: self._context.processes]
        for sentences, logits, targets in self._predict(mine):
            loss += float(_loss(logits, targets))
            pieces += float((targets != IGNORED).sum())
            for sentence, tags in zip(sentences, self._tags(sentences, logits), strict=True):
                counts.add(tags, sentence.tags)
                words += len(tags)
                right += sum(a == b for a, b in zip(tags, sentence.tags, strict=True))
        mine_told = {"loss": loss, "right": right, "words": words, "pieces": pieces}
        summed = self._context.total(mine_told | counts.as_numbers())
        counts.replace(summed)
        self._counts, overall = counts, counts.overall()
        return {
            "valid_loss": summed["loss"] / max(1.0, summed["pieces"]),
            "valid_word_accuracy": summed["right"] / max(1.0, summed["words"]),
            "valid_entity_precision": overall.precision,
            "valid_entity_recall": overall.recall,
            "valid_entity_f1": overall.f1,
        }

    def save_checkpoint(self, folder: Path) -> None:
        self._classifier.save(folder)

    def export(self, folder: Path) -> None:
        self._classifier.save(folder)

    def report(self, which: Literal["before", "after"]) -> dict[str, Any]:
        """Tables of the newest evaluation, which was of these weights; and to compare it with, what
        looking words up would get."""
        remembered = remembering(
            [(s.words, s.tags) for s in self._train],
            [(s.words, s.tags) for s in self._valid],
            self._kinds,
        ).overall()
        if which == "after":
            self._write(remembered.f1)
        return {"remembering_entity_f1": remembered.f1}

    def _write(self, remembered_f1: float) -> None:
        outside = sum(sentence.tags.count(OUTSIDE) for sentence in self._valid)
        share = outside / max(1, sum(len(sentence.tags) for sentence in self._valid))
        scores = [*self._counts.scores(), self._counts.overall()]
        told = {
            "entities": reports.as_json(scores),
            "remembering_entity_f1": remembered_f1,
            "outside_share": share,
        }
        text = json.dumps(told, ensure_ascii=False, indent=1)
        (self._context.files / "entities.json").write_text(text, encoding="utf-8")
        self._context.sections["Entities"] = "\n\n".join(
            [
                f"Of {len(self._valid)} sentences that were held out. An entity counts when its "
                "kind and both its ends are right. Saying that no word is part of one would be "
                f"right for {share:.1%} of the words and find none; remembering for each word of "
                f"the training data its most frequent tag reaches an F1 of {remembered_f1:.3f}.",
                reports.scores_table(scores, counted="entities"),
            ]
        )

    # --- sentences and numbers ----------------------------------------------------------------

    def _mend(self, rows: Sequence[dict[str, Any]]) -> None:
        """Entities that begin with ``I-`` are read as if they began with ``B-``."""
        changed = 0
        for row in rows:
            tags = as_bio(row["tags"])
            changed += sum(a != b for a, b in zip(tags, row["tags"], strict=True))
            row["tags"] = tags
        if changed:
            self._context.note(f"{changed} tags 'I-…' that continue nothing are read as 'B-…'")

    def _read(self, rows: Sequence[dict[str, Any]]) -> list[Sentence]:
        texts = [joined(row["tokens"]) for row in rows]
        plain = [text for text, _ in texts]
        tokenizer = self._classifier.tokenizer
        self._decide_length([len(tokens) for tokens in tokenizer(plain)["input_ids"]])
        read = tokenizer(
            plain,
            truncation=True,
            max_length=self._context.hyperparameters.max_length,
            return_offsets_mapping=True,
        )
        return [
            self._sentence(row, tokens, first_pieces(spans, offsets))
            for row, (_, spans), tokens, offsets in zip(
                rows, texts, read["input_ids"], read["offset_mapping"], strict=True
            )
        ]

    def _decide_length(self, lengths: list[int]) -> None:
        """The first call's, of the training sentences, holds."""
        longest = self._classifier.longest
        wanted = self._context.hyperparameters.max_length or max_length(lengths, longest)
        numbers = self._context.hyperparameters.deciding(max_length=min(wanted, longest))
        self._context.hyperparameters = numbers

    def _sentence(
        self, row: dict[str, Any], tokens: list[int], firsts: list[int | None]
    ) -> Sentence:
        targets = [IGNORED] * len(tokens)
        for first, tag in zip(firsts, row["tags"], strict=True):
            if first is not None and targets[first] == IGNORED:
                targets[first] = self._numbers[tag]
        return Sentence(row["tokens"], row["tags"], tokens, firsts, targets)

    def _predict(
        self, sentences: Sequence[Sentence]
    ) -> Iterator[tuple[list[Sentence], Tensor, Tensor]]:
        """Like lengths together, with their logits and targets."""
        lengths = [len(sentence.tokens) for sentence in sentences]
        for places in parts_by_size(range(len(sentences)), lengths, TOKENS_AT_ONCE):
            part = [sentences[place] for place in places]
            yield part, *self._outputs(part)

    def _outputs(self, sentences: Sequence[Sentence]) -> tuple[Tensor, Tensor]:
        """Logits (sentences, pieces, labels) in float32, and targets (sentences, pieces)."""
        device = self._context.device
        inputs = self._classifier.padded([s.tokens for s in sentences], device)
        longest = inputs["input_ids"].shape[1]
        padded = [[*s.targets, *[IGNORED] * (longest - len(s.targets))] for s in sentences]
        with self._context.autocast():
            logits: Tensor = self._classifier.model(**inputs).logits
        return logits.float(), torch.tensor(padded, device=device)

    def _tags(self, sentences: Sequence[Sentence], logits: Tensor) -> list[list[str]]:
        """What the engine would say of each word; outside, of words that were cut off."""
        chances = log_softmax(as_numbers(logits))
        told = []
        for sentence, row in zip(sentences, chances, strict=True):
            known = [first for first in sentence.firsts if first is not None]
            tags = iter(self._reader.tags(row[known]))
            told.append([OUTSIDE if first is None else next(tags) for first in sentence.firsts])
        return told


def _words_n(sentence: Sentence) -> int:
    return sum(target != IGNORED for target in sentence.targets)


def _loss(logits: Tensor, targets: Tensor) -> Tensor:
    """The sum over words."""
    return functional.cross_entropy(
        logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORED, reduction="sum"
    )
