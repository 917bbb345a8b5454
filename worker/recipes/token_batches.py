"""Tokens of several examples as one forward pass, and the loss of what is to be learnt.

Two layouts. *Padded*: a line for each example, sorted so that little is padding. *Packed*: one
line, examples behind one another, positions from 0 in each; the model's attention mask keeps them
apart (transformers builds it from the positions), so nothing crosses and losses are the same.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from worker.recipes.texts import Encoded

IGNORED = -100
_NOISE = 0.1


@dataclass(frozen=True, slots=True)
class TokenBatch:
    """Inputs of a model and, for each position, the token that should come next."""

    inputs: dict[str, torch.Tensor]
    wanted: torch.Tensor
    """(lines, positions); ``IGNORED`` where there is nothing to learn."""
    tokens: int
    """Of the examples, without padding."""
    trained: int


@dataclass(frozen=True, slots=True)
class Loss:
    """Sums over the tokens that are to be learnt."""

    total: torch.Tensor
    """Cross entropy in nats; float32, with gradients."""
    right: torch.Tensor
    """How many the model would have said."""
    trained: int


def padded(examples: Sequence[Encoded], pad_id: int, device: torch.device) -> TokenBatch:
    width = max(len(example) for example in examples)
    shape = (len(examples), width)
    ids, wanted = torch.full(shape, pad_id), torch.full(shape, IGNORED)
    mask = torch.zeros(shape, dtype=torch.long)
    for line, example in enumerate(examples):
        count = len(example)
        ids[line, :count] = torch.tensor(example.ids)
        wanted[line, : count - 1] = _wanted(example)
        mask[line, :count] = 1
    inputs = {"input_ids": ids.to(device), "attention_mask": mask.to(device)}
    return _batch(inputs, wanted.to(device), examples)


def packed(examples: Sequence[Encoded], device: torch.device) -> TokenBatch:
    ids = torch.tensor([token for example in examples for token in example.ids])
    positions = torch.cat([torch.arange(len(example)) for example in examples])
    wanted = torch.full_like(ids, IGNORED)
    at = 0
    for example in examples:
        wanted[at : at + len(example) - 1] = _wanted(example)
        at += len(example)
    inputs = {"input_ids": ids[None].to(device), "position_ids": positions[None].to(device)}
    return _batch(inputs, wanted[None].to(device), examples)


def token_loss(model: nn.Module, batch: TokenBatch) -> Loss:
    """One forward pass. Where the model lets us, the output layer runs only at positions that are
    learnt: with a vocabulary of 50,000 it is a large part of the work."""
    used = (batch.wanted != IGNORED).any(dim=0).nonzero()[:, 0]
    wanted = batch.wanted
    more: dict[str, Any] = {}
    if used.numel() and takes_positions(model):
        more, wanted = {"logits_to_keep": used}, wanted[:, used]
    logits = model(**batch.inputs, use_cache=False, **more).logits
    learnt = wanted != IGNORED
    chosen, targets = logits[learnt].float(), wanted[learnt]
    total = nn.functional.cross_entropy(chosen, targets, reduction="sum")
    right = (chosen.detach().argmax(dim=-1) == targets).sum()
    return Loss(total, right, batch.trained)


def parts_by_size(rows: Sequence[int], lengths: Sequence[int], most_tokens: int) -> list[list[int]]:
    """A microbatch in forward passes of at most ``most_tokens`` positions, padding included;
    longest first, so that what does not fit fails at once."""
    parts: list[list[int]] = []
    for row in sorted(rows, key=lambda row: -lengths[row]):
        if parts and lengths[parts[-1][0]] * (len(parts[-1]) + 1) <= most_tokens:
            parts[-1].append(row)
        else:
            parts.append([row])
    return parts


def takes_positions(model: nn.Module) -> bool:
    """Whether ``logits_to_keep`` may be a tensor of positions."""
    whole: Any = model
    inner = whole.get_base_model() if hasattr(whole, "get_base_model") else whole
    return "logits_to_keep" in inspect.signature(inner.forward).parameters


@torch.no_grad()
def packing_is_exact(model: nn.Module, examples: Sequence[Encoded], device: torch.device) -> bool:
    """Whether examples in one line leave one another alone, tried on two of them: models without
    attention carry a state from one to the next.

    What the first does to the second is held against what it does when positions run on, as in one
    text, so that the arithmetic's own noise does not matter.
    """
    first, second = examples[:2]
    together = packed([first, second], device).inputs
    running = torch.arange(len(first) + len(second), device=device)[None]
    alone = _logits(model, packed([second], device).inputs, len(second))
    apart = _logits(model, together, len(second))
    crossed = _logits(model, together | {"position_ids": running}, len(second))
    return bool((apart - alone).abs().mean() < _NOISE * (crossed - alone).abs().mean())


def _logits(model: nn.Module, inputs: dict[str, torch.Tensor], last: int) -> torch.Tensor:
    logits: torch.Tensor = model(**inputs, use_cache=False).logits
    return logits[0, -last:].float()


def _wanted(example: Encoded) -> torch.Tensor:
    following = zip(example.ids[1:], example.trained[1:], strict=True)
    return torch.tensor([token if learnt else IGNORED for token, learnt in following])


def _batch(
    inputs: dict[str, torch.Tensor], wanted: torch.Tensor, examples: Sequence[Encoded]
) -> TokenBatch:
    tokens = sum(len(example) for example in examples)
    return TokenBatch(inputs, wanted, tokens, sum(e.trained_count for e in examples))
