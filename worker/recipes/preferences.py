"""Pairs of answers, and how likely a language model finds either."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from worker.recipes.texts import Encoded, Encoder
from worker.recipes.token_batches import IGNORED, TokenBatch, takes_positions


@dataclass(frozen=True, slots=True)
class Pair:
    """A prompt with either answer; only the answers' tokens count."""

    chosen: Encoded
    rejected: Encoded

    @property
    def tokens(self) -> int:
        return len(self.chosen) + len(self.rejected)

    @property
    def longer(self) -> int:
        return max(len(self.chosen), len(self.rejected))


@dataclass(frozen=True, slots=True)
class Preferences:
    """Log-probabilities of answers in nats, one number a pair."""

    chosen: Tensor
    rejected: Tensor

    def margin(self, reference: Preferences) -> Tensor:
        """How much more than the reference they prefer what is chosen."""
        return (self.chosen - reference.chosen) - (self.rejected - reference.rejected)

    def rows(self, rows: Sequence[int]) -> Preferences:
        return Preferences(self.chosen[list(rows)], self.rejected[list(rows)])


def answered(model: nn.Module, batch: TokenBatch) -> Tensor:
    """(lines,): the log-probability of what is to be learnt in each line, in nats, float32. Where
    the model lets us, the output layer runs only where that is."""
    used = (batch.wanted != IGNORED).any(dim=0).nonzero()[:, 0]
    wanted = batch.wanted
    options: dict[str, Any] = {}
    if used.numel() and takes_positions(model):
        options, wanted = {"logits_to_keep": used}, wanted[:, used]
    logits = model(**batch.inputs, use_cache=False, **options).logits
    learnt = wanted != IGNORED
    chances = nn.functional.cross_entropy(logits[learnt].float(), wanted[learnt], reduction="none")
    lines = learnt.nonzero()[:, 0]
    return torch.zeros(len(wanted), device=chances.device).index_add(0, lines, -chances)


def read_pairs(encoder: Encoder, rows: Sequence[dict[str, Any]]) -> list[Pair]:
    return [
        Pair(
            encoder.answered(row["prompt"], row["chosen"]),
            encoder.answered(row["prompt"], row["rejected"]),
        )
        for row in rows
    ]


def a_token(said: Preferences, pairs: Sequence[Pair]) -> Tensor:
    """How much likelier the mean token of the preferred answer is: sums would favour the shorter
    one."""
    counts = [(p.chosen.trained_count, p.rejected.trained_count) for p in pairs]
    chosen, rejected = torch.tensor(counts, device=said.chosen.device).clamp(min=1).unbind(1)
    return said.chosen / chosen - said.rejected / rejected


def more(margin: Tensor) -> Tensor:
    """1 where it is above zero, a half where it is zero."""
    return (margin.sign() + 1) / 2
