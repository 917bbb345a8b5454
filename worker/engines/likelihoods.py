"""How likely tokens are: what the model itself gives the ones that were picked, and the likeliest.

The numbers are natural logarithms of the model's own distribution, before temperature, ``top_p``,
penalties and grammars have their say.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from worker.engines.spelling import Spellings

IMPOSSIBLE = -9999.0
"""In place of minus infinity, for which JSON has no word."""
_PLAIN = frozenset(map(chr, range(0x20, 0x7F))) - {"\\"}
_ROWS_AT_ONCE = 16
"""Whose vocabularies are held in fp32 at a time."""


class Marks:
    """What the model gave the tokens of one choice, and the ``top`` likeliest beside each."""

    def __init__(self, top: int) -> None:
        self.top = top
        self.chosen = array("f")
        self._best_tokens = array("i")
        self._best = array("f")

    def add(self, chosen: float, tokens: Sequence[int], logprobs: Sequence[float]) -> None:
        """``tokens`` and ``logprobs`` are those of the likeliest, best first."""
        self.chosen.append(chosen)
        self._best_tokens.extend(tokens[: self.top])
        self._best.extend(logprobs[: self.top])

    def best(self, place: int) -> list[tuple[int, float]]:
        """The likeliest tokens at the place of the given one."""
        at = place * self.top
        upto = at + self.top
        return list(zip(self._best_tokens[at:upto], self._best[at:upto], strict=True))

    @property
    def mean(self) -> float:
        """How likely the choice is, by token."""
        return math.fsum(self.chosen) / max(1, len(self.chosen))

    def restart(self) -> None:
        """Forgets all tokens."""
        for kept in (self.chosen, self._best_tokens, self._best):
            del kept[:]


class Marked(Protocol):
    @property
    def marks(self) -> Marks | None: ...


def mark(logits: Tensor, choices: Sequence[Marked], tokens: Sequence[int]) -> None:
    """Notes how likely ``tokens`` are, one a choice, for the choices that ask. ``logits`` is
    (choices, vocabulary), as the model made them; it is left unchanged, and nothing of it is
    kept."""
    asking = [(row, c.marks) for row, c in enumerate(choices) if c.marks is not None]
    for start in range(0, len(asking), _ROWS_AT_ONCE):
        _mark(logits, asking[start : start + _ROWS_AT_ONCE], tokens)


def _mark(logits: Tensor, asking: Sequence[tuple[int, Marks]], tokens: Sequence[int]) -> None:
    rows = [row for row, _ in asking]
    part = logits[torch.tensor(rows, device=logits.device)].float()
    total = part.logsumexp(dim=-1, keepdim=True)
    picked = torch.tensor([tokens[row] for row in rows], device=logits.device)
    chosen = (part.gather(1, picked[:, None]) - total).squeeze(1).tolist()
    most = min(max(marks.top for _, marks in asking), part.shape[1])
    best, ids = part.topk(most, dim=-1)
    named, logprobs = ids.tolist(), (best - total).tolist()
    for (_, marks), own, one, two in zip(asking, chosen, named, logprobs, strict=True):
        marks.add(own, one, two)


class Telling:
    """The marks of one choice as a body says them, in either of OpenAI's shapes."""

    def __init__(self, marks: Marks, spellings: Spellings, *, chat: bool, at: int) -> None:
        """``at`` is how many characters come before the text: of a completion, its prompt."""
        self._marks = marks
        self._chat = chat
        self._at = at
        self._token_bytes = spellings.token_bytes
        self._spelling = spellings.begin()
        self._seen = 0
        """Tokens that were looked at …"""
        self._told = 0
        """… and how many of them ``fresh`` has told."""

    def whole(self, text: str, tokens: Sequence[int]) -> dict[str, Any]:
        """Of all ``tokens`` that have a part in ``text``."""
        self._spelling.read(tokens)
        return self._said(range(self._spelling.within(text, tokens)))

    def fresh(self, tokens: Sequence[int], told: int) -> tuple[int, dict[str, Any]]:
        """Of those of ``tokens`` that end within the first ``told`` characters of the text and
        were not told before; and how many were."""
        self._spelling.read(tokens)
        ends, first = self._spelling.ends, self._seen
        while self._seen < len(ends) and ends[self._seen] <= told:
            self._seen += 1
        before = self._told
        places = [place for place in range(first, self._seen) if self._spelling.bytes[place]]
        self._told += len(places)
        return before, self._said(places)

    def _said(self, places: Sequence[int]) -> dict[str, Any]:
        spoken = [place for place in places if self._spelling.bytes[place]]
        if self._chat:
            return {"content": [self._of_chat(place) for place in spoken], "refusal": None}
        return {
            "tokens": [_flat(self._spelling.bytes[place]) for place in spoken],
            "token_logprobs": [_number(self._marks.chosen[place]) for place in spoken],
            "top_logprobs": [self._of_completion(place) for place in spoken],
            "text_offset": [self._at + self._spelling.begins[place] for place in spoken],
        }

    def _of_chat(self, place: int) -> dict[str, Any]:
        best = [self._named(token, mark) for token, mark in self._marks.best(place)]
        own = _entry(self._spelling.bytes[place], self._marks.chosen[place])
        return {**own, "top_logprobs": best}

    def _of_completion(self, place: int) -> dict[str, float]:
        """The picked one is always among them."""
        best = {
            _flat(self._token_bytes.named(token)): _number(mark)
            for token, mark in reversed(self._marks.best(place))
        }
        found = dict(reversed(best.items()))  # of tokens that look alike, the likelier
        own = _number(self._marks.chosen[place])
        return found | {_flat(self._spelling.bytes[place]): own}

    def _named(self, token: int, logprob: float) -> dict[str, Any]:
        return _entry(self._token_bytes.named(token), logprob)


def _entry(raw: bytes, logprob: float) -> dict[str, Any]:
    return {"token": _text(raw), "bytes": list(raw), "logprob": _number(logprob)}


def _text(raw: bytes) -> str:
    """A token as text; of one that is no text by itself, its bytes as ``\\xe2``."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return _escaped(raw)


def _flat(raw: bytes) -> str:
    """The same where there is no list of bytes beside it."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return "bytes:" + _escaped(raw)


def _escaped(raw: bytes) -> str:
    return "".join(chr(byte) if chr(byte) in _PLAIN else f"\\x{byte:02x}" for byte in raw)


def _number(logprob: float) -> float:
    """As precise as fp32 is."""
    return float(f"{logprob:.8g}") if math.isfinite(logprob) else IMPOSSIBLE
