"""Choices that are held to a grammar: which tokens may come next, and when the text is whole.

llguidance does the work. A choice has a matcher of its own; those of a microbatch compute their
masks side by side, outside the interpreter's lock.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cache
from typing import Protocol

import numpy as np
import torch
from llguidance import LLExecutor, LLMatcher
from torch import Tensor

from worker.engines.matchers import error_of
from worker.engines.schema_checks import AnswerCheck

_WORD_BITS = 32
_MOST_THREADS = 8


class Grammar:
    """A compiled schema. Choices share it; each begins a constraint of its own."""

    def __init__(self, matcher: LLMatcher, check: AnswerCheck, vocabulary_size: int) -> None:
        self._matcher = matcher
        self._check = check
        self.vocabulary_size = vocabulary_size

    def begin(self) -> Constraint:
        return Constraint(self._matcher.deep_copy(), self.vocabulary_size)

    def flaw(self, text: str) -> str | None:
        """Why a finished text is not what the schema asks; None when it is."""
        return self._check.flaw(text)


class Constraint:
    """What holds one choice to its grammar."""

    def __init__(self, matcher: LLMatcher, vocabulary_size: int) -> None:
        self.matcher = matcher
        self.vocabulary_size = vocabulary_size

    @property
    def failure(self) -> str | None:
        """Why the grammar can't go on: it is too complex here, or nothing satisfies it."""
        return error_of(self.matcher)

    @property
    def complete(self) -> bool:
        """Nothing but the end may follow."""
        return bool(self.matcher.is_stopped())

    def accept(self, token: int) -> None:
        """Goes on by a token that is not an end."""
        self.matcher.consume_token(token)

    def restart(self) -> None:
        """Forgets all tokens."""
        self.matcher.reset()


class Held(Protocol):
    @property
    def constraint(self) -> Constraint | None: ...


def hold(logits: Tensor, choices: Sequence[Held]) -> Tensor:
    """``logits``, (choices, vocabulary), with minus infinity for what a choice may not say next.

    They are left unchanged; without any constraint among the choices they come back as they are.
    A choice whose grammar can't go on may say anything: its ``failure`` tells.
    """
    held = [(i, c.constraint) for i, c in enumerate(choices) if c.constraint is not None]
    if not held:
        return logits
    forbidden = ~_allowed([constraint for _, constraint in held], logits.shape[1])
    forbidden = forbidden.to(logits.device)
    if len(held) == len(choices):
        return logits.masked_fill(forbidden, -torch.inf)
    rows = torch.tensor([row for row, _ in held], device=logits.device)
    masked = logits.clone()
    masked[rows] = masked[rows].masked_fill_(forbidden, -torch.inf)
    return masked


def _allowed(constraints: Sequence[Constraint], size: int) -> Tensor:
    """(constraints, size) bool; ``size`` is the model's, which may pad its tokenizer's."""
    known = constraints[0].vocabulary_size
    words = np.zeros((len(constraints), -(-known // _WORD_BITS)), dtype="<i4")
    going = [(c.matcher, row) for row, c in enumerate(constraints) if not c.matcher.is_error()]
    if going:  # the library raises for none
        _executor().unsafe_compute_mask_ptr(
            going, words.ctypes.data, words.shape[1] * words.itemsize, len(constraints)
        )
    bits = np.unpackbits(words.view(np.uint8), axis=1, bitorder="little")[:, : min(known, size)]
    allowed = np.zeros((len(constraints), size), dtype=np.bool_)
    allowed[:, : bits.shape[1]] = bits
    for row, constraint in enumerate(constraints):
        if constraint.matcher.is_error():
            allowed[row] = True
    return torch.from_numpy(allowed)


@cache
def _executor() -> LLExecutor:
    return LLExecutor(min(os.cpu_count() or 1, _MOST_THREADS))
