"""Text classification: one label for each text, by an encoder or a causal model with a head."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional
from transformers import AutoModelForSequenceClassification

from worker.recipes import classification_reports as reports
from worker.recipes.auto import max_length
from worker.recipes.classifier_models import ClassifierModel, load
from worker.recipes.context import Context
from worker.recipes.loop import Loop
from worker.recipes.shape import RecipeError, Trained
from worker.recipes.token_batches import parts_by_size

IMBALANCED = 2.0
"""Times that the most frequent label outnumbers the rarest from which on weights are used …"""
MOST_WEIGHT = 10.0
"""… and the largest of them: of a handful of examples nobody should learn by heart."""
TOKENS_AT_ONCE = 8192
"""Positions of one forward pass; a larger microbatch takes several."""


class TextClassification:
    """Rows are ``{"text", "label"}``; labels are those of the plan."""

    engine = "classifier"
    adapter = False  # LoRA's updates are delivered inside the weights

    def __init__(self, context: Context) -> None:
        self._context = context
        self.settings: dict[str, Any] = {}
        self.detail: dict[str, Any] = {}

    def setup(self) -> None:
        context = self._context
        self._labels = list(context.plan.labels)
        train, validation = context.train_rows(), context.validation_rows()
        numbers = {label: number for number, label in enumerate(self._labels)}
        self._truth = self._read_labels(train, numbers)
        self._valid_truth = self._read_labels(validation, numbers)
        self._classifier = load(context, AutoModelForSequenceClassification, self._labels)
        self._train, lengths = self._tokenise([row["text"] for row in train])
        self._lengths = [len(tokens) for tokens in self._train]
        self._valid, _ = self._tokenise([row["text"] for row in validation])
        self._weights = class_weights(self._truth, len(self._labels)).to(context.device)
        self._weighted = bool((self._weights != 1).any())
        if self._weighted:
            context.note("labels are imbalanced: rare ones count more in the loss")
        self.detail = self._classifier.detail | {
            "class_weights": self._weighted,
            "cut_examples": sum(length > self._longest for length in lengths),
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
            whole = float(sum(float(self._weights[self._truth[row]]) for row in batch.rows))
            for microbatch in batch.microbatches:
                for rows in parts_by_size(microbatch, self._lengths, TOKENS_AT_ONCE):
                    self._learn(loop, rows, whole)
            loop.update()

    def _learn(self, loop: Loop, rows: list[int], whole: float) -> None:
        """One forward pass; ``whole`` is what all examples of the step weigh."""
        tokens = [self._train[row] for row in rows]
        truth = self._tensor([self._truth[row] for row in rows])
        logits = self._logits(tokens)
        loss = functional.cross_entropy(logits, truth, weight=self._weights)
        loop.backward(loss, share=float(self._weights[truth].sum()) / whole)
        right = (logits.argmax(-1) == truth).float().mean()
        loop.report(train_accuracy=right, tokens=sum(map(len, tokens)))

    def evaluate(self) -> dict[str, float]:
        """``valid_loss`` (weighted as in training), ``valid_accuracy``, ``valid_macro_f1``."""
        size = len(self._labels)
        counts = torch.zeros(size, size, dtype=torch.long)
        loss = weight = 0.0
        mine = range(self._context.rank, len(self._valid), self._context.processes)
        for rows, logits in self._predict(mine):
            truth = self._tensor([self._valid_truth[row] for row in rows])
            told = functional.cross_entropy(logits, truth, weight=self._weights, reduction="sum")
            loss += float(told)
            weight += float(self._weights[truth].sum())
            for true, said in zip(truth.tolist(), logits.argmax(-1).tolist(), strict=True):
                counts[true, said] += 1
        flat = {f"{i}": float(n) for i, n in enumerate(counts.reshape(-1).tolist())}
        summed = self._context.total({"loss": loss, "weight": weight, **flat})
        cells = [int(summed[f"{i}"]) for i in range(size * size)]
        self._confusion = [cells[start : start + size] for start in range(0, size * size, size)]
        return {
            "valid_loss": summed["loss"] / summed["weight"],
            "valid_accuracy": reports.accuracy(self._confusion),
            "valid_macro_f1": reports.macro_f1(self._labels, self._confusion),
        }

    def save_checkpoint(self, folder: Path) -> None:
        self._classifier.save(folder)

    def export(self, folder: Path) -> None:
        self._classifier.save(folder)

    def report(self, which: Literal["before", "after"]) -> dict[str, Any]:
        """Tables of the newest evaluation, which was of these weights; and to compare it with, what
        the most frequent label alone would get."""
        counts, truth = self._counted(self._truth), self._counted(self._valid_truth)
        baseline = reports.majority_accuracy(counts, truth)
        if which == "after":
            self._write(baseline)
        return {"majority_accuracy": baseline}

    def _write(self, baseline: float) -> None:
        labels, confusion, files = self._labels, self._confusion, self._context.files
        scores = reports.label_scores(labels, confusion)
        told = {
            "accuracy": reports.accuracy(confusion),
            "macro_f1": reports.macro_f1(labels, confusion),
            "majority_accuracy": baseline,
            "labels": reports.as_json(scores),
            "confusion": confusion,
        }
        text = json.dumps(told, ensure_ascii=False, indent=1)
        (files / "classification.json").write_text(text, encoding="utf-8")
        parts = [
            f"Of {len(self._valid)} texts that were held out. Always saying the most frequent "
            f"label of the training data would be right for {baseline:.1%} of them. Unless the "
            "base model knew these labels, its head was untrained before: it said them by chance.",
            reports.scores_table(scores),
        ]
        if reports.draw_confusion(labels, confusion, files / "confusion.png"):
            parts += [reports.confusion_table(labels, confusion)]
            parts += ["![Who was taken for whom](confusion.png)"]
        self._context.sections["Labels"] = "\n\n".join(parts)

    # --- texts and numbers --------------------------------------------------------------------

    def _read_labels(self, rows: Sequence[dict[str, Any]], numbers: dict[str, int]) -> list[int]:
        if missing := {row["label"] for row in rows} - numbers.keys():
            message = f"{len(missing)} labels of the data are not among the training's"
            raise RecipeError("unknown_label", message, "data")
        return [numbers[row["label"]] for row in rows]

    def _tokenise(self, texts: list[str]) -> tuple[list[list[int]], list[int]]:
        """Token ids, cut at the length that the first call (of the training texts) decides; and how
        long they were."""
        classifier: ClassifierModel = self._classifier
        whole = classifier.tokenizer(texts)["input_ids"]
        lengths = [len(tokens) for tokens in whole]
        wanted = self._context.hyperparameters.max_length or max_length(lengths, classifier.longest)
        self._longest = min(wanted, classifier.longest)
        self._context.hyperparameters = self._context.hyperparameters.deciding(
            max_length=self._longest
        )
        cut = classifier.tokenizer(texts, truncation=True, max_length=self._longest)["input_ids"]
        return [tokens or [classifier.padding] for tokens in cut], lengths

    def _predict(self, rows: Sequence[int]) -> Iterator[tuple[list[int], Tensor]]:
        """Rows of the validation split, like lengths together, and their logits."""
        lengths = [len(tokens) for tokens in self._valid]
        for part in parts_by_size(rows, lengths, TOKENS_AT_ONCE):
            yield part, self._logits([self._valid[row] for row in part])

    def _logits(self, tokens: list[list[int]]) -> Tensor:
        """(texts, labels), in float32."""
        inputs = self._classifier.padded(tokens, self._context.device)
        with self._context.autocast():
            logits: Tensor = self._classifier.model(**inputs).logits
        return logits.float()

    def _tensor(self, numbers: list[int]) -> Tensor:
        return torch.tensor(numbers, device=self._context.device)

    def _counted(self, truth: list[int]) -> dict[str, int]:
        return {self._labels[number]: n for number, n in Counter(truth).items()}


def class_weights(truth: Sequence[int], labels: int) -> Tensor:
    """What each label's examples count: 1, or as much in all as any other label's when one is more
    than ``IMBALANCED`` times as frequent as another. Their mean over the examples is 1 (unless
    ``MOST_WEIGHT`` cuts one)."""
    counts = Counter(truth)
    if max(counts.values()) <= IMBALANCED * min(counts.values()):
        return torch.ones(labels)
    even = len(truth) / len(counts)
    return torch.tensor(
        [min(MOST_WEIGHT, even / counts[n]) if n in counts else 1.0 for n in range(labels)]
    )
