"""From logits to tokens: every row of a microbatch with its own sampling parameters and stream."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

GREEDY_BELOW = 1e-5
"""Temperatures under this are greedy: dividing by them says nothing more."""
_BLOCK = 256
_NUCLEUS_GUESS = 512
_UINT64 = 2**64 - 1


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the tokens of one choice are picked. Penalties count the generated tokens only."""

    temperature: float = 1.0
    top_p: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0

    @property
    def greedy(self) -> bool:
        return self.temperature < GREEDY_BELOW

    @property
    def penalised(self) -> bool:
        return self.presence_penalty != 0.0 or self.frequency_penalty != 0.0


class Stream:
    """Uniform numbers in [0, 1), a function of seed and choice alone (Philox, one per token)."""

    def __init__(self, seed: int, choice: int) -> None:
        key = np.array([seed & _UINT64, choice & _UINT64], dtype=np.uint64)
        self._generator = np.random.Generator(np.random.Philox(key=key))

    def next(self) -> float:
        return self._generator.random()


def random_seed() -> int:
    """A seed for a row that named none."""
    return secrets.randbits(63)


def seed_of(name: str) -> int:
    """The seed that goes with a name, as good as any."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest()) >> 1


class Sampled(Protocol):
    """What ``pick`` needs to know of a choice."""

    @property
    def sampling(self) -> Sampling: ...

    @property
    def stream(self) -> Stream: ...

    @property
    def generated(self) -> list[int]:
        """Its tokens so far."""


def pick(logits: Tensor, choices: Sequence[Sampled]) -> list[int]:
    """The next token of each choice; ``logits`` is (choices, vocabulary), left unchanged.

    Greedy rows cost an argmax. A random row draws one uniform and inverts its cumulative
    distribution, so what it draws depends on its own logits and stream only.
    """
    tokens = logits.argmax(dim=-1)
    special = [i for i, c in enumerate(choices) if c.sampling.penalised or not c.sampling.greedy]
    if special:
        rows = torch.tensor(special, device=logits.device)
        picked = _pick_special(logits[rows].float(), [choices[i] for i in special])
        tokens[rows] = picked
    picked_tokens: list[int] = tokens.tolist()
    return picked_tokens


def _pick_special(logits: Tensor, choices: Sequence[Sampled]) -> Tensor:
    _subtract_penalties(logits, choices)
    tokens = logits.argmax(dim=-1)
    random = [i for i, c in enumerate(choices) if not c.sampling.greedy]
    if not random:
        return tokens
    rows = torch.tensor(random, device=logits.device)
    drawing = [choices[i] for i in random]
    temperatures = _column([c.sampling.temperature for c in drawing], logits)
    probabilities = torch.softmax(logits[rows] / temperatures.float(), dim=-1)
    uniforms = _column([c.stream.next() for c in drawing], logits)
    top_p = _column([c.sampling.top_p for c in drawing], logits)
    tokens[rows] = draw(probabilities, uniforms, top_p)
    return tokens


def _column(values: list[float], like: Tensor) -> Tensor:
    return torch.tensor(values, dtype=torch.float64, device=like.device)[:, None]


def _subtract_penalties(logits: Tensor, choices: Sequence[Sampled]) -> None:
    """OpenAI's rule: logit -= count * frequency_penalty + (count > 0) * presence_penalty."""
    rows: list[int] = []
    tokens: list[int] = []
    amounts: list[float] = []
    for row, choice in enumerate(choices):
        sampling = choice.sampling
        if not sampling.penalised:
            continue
        seen, counts = np.unique(np.asarray(choice.generated, np.int64), return_counts=True)
        rows += [row] * len(seen)
        tokens += seen.tolist()
        amounts += (-sampling.presence_penalty - counts * sampling.frequency_penalty).tolist()
    if rows:
        where = (
            torch.tensor(rows, device=logits.device),
            torch.tensor(tokens, device=logits.device),
        )
        logits.index_put_(where, torch.tensor(amounts, device=logits.device), accumulate=True)


def draw(probabilities: Tensor, uniforms: Tensor, top_p: Tensor) -> Tensor:
    """Inverts each row's distribution at its uniform.

    Shapes: (rows, vocabulary) float32, and (rows, 1) float64 for the other two; the answer is
    (rows,) int64. Rows with ``top_p`` < 1 draw from their nucleus, most likely token first.
    """
    tokens = torch.empty(probabilities.shape[0], dtype=torch.int64, device=probabilities.device)
    whole = (top_p >= 1.0).squeeze(1)
    if whole.any():
        tokens[whole] = _draw_from_all(probabilities[whole], uniforms[whole])
    cut = ~whole
    if cut.any():
        tokens[cut] = _draw_from_nucleus(probabilities[cut], uniforms[cut], top_p[cut])
    return tokens


def _draw_from_all(probabilities: Tensor, uniforms: Tensor) -> Tensor:
    """In vocabulary order, by blocks: a cumulative sum over the whole vocabulary is slow."""
    rows, size = probabilities.shape
    padded = functional.pad(probabilities, (0, -size % _BLOCK)).view(rows, -1, _BLOCK)
    totals = padded.sum(dim=-1).double().cumsum(dim=-1)
    target = uniforms * totals[:, -1:]
    block = _first_above(totals, target)
    before = torch.where(block > 0, totals.gather(1, (block - 1).clamp(min=0)), 0.0)
    chosen = padded.gather(1, block[:, :, None].expand(-1, -1, _BLOCK)).squeeze(1)
    inside = chosen.double().cumsum(dim=-1)
    return (block * _BLOCK + _first_above(inside, target - before)).squeeze(1)


def _draw_from_nucleus(probabilities: Tensor, uniforms: Tensor, top_p: Tensor) -> Tensor:
    guess = min(_NUCLEUS_GUESS, probabilities.shape[1])
    ordered, tokens = probabilities.topk(guess, dim=-1)
    drawn = _draw_ordered(ordered, tokens, uniforms, top_p)
    wide = ordered.double().sum(dim=-1) < top_p.squeeze(1)
    if wide.any():
        ordered, tokens = probabilities[wide].sort(dim=-1, descending=True, stable=True)
        drawn[wide] = _draw_ordered(ordered, tokens, uniforms[wide], top_p[wide])
    return drawn


def _draw_ordered(ordered: Tensor, tokens: Tensor, uniforms: Tensor, top_p: Tensor) -> Tensor:
    """``ordered`` falls; the nucleus is the shortest head whose mass reaches ``top_p``."""
    mass = ordered.double().cumsum(dim=-1)
    last = ((mass - ordered) < top_p).sum(dim=-1, keepdim=True) - 1
    place = _first_above(mass, uniforms * mass.gather(1, last))
    return tokens.gather(1, torch.minimum(place, last)).squeeze(1)


def _first_above(cumulative: Tensor, target: Tensor) -> Tensor:
    """The first index whose cumulative mass exceeds ``target``; never one of zero mass."""
    below_total = torch.minimum(target, cumulative[:, -1:] * (1 - 1e-12))
    found = torch.searchsorted(cumulative, below_total.contiguous(), right=True)
    return found.clamp(max=cumulative.shape[1] - 1)
