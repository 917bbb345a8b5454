"""How likely the fake engine says its words were: pure functions of a digest.

Tokens are words, each with the space before it. The one that was said is the likeliest at its
place; those beside it are other words, each less likely than the one before.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Sequence
from typing import Any

_STEP = 0.25


def tokens_of(text: str) -> list[str]:
    """A text in its tokens."""
    return re.findall(r"\s*\S+|\s+$", text)


def fake_logprobs(
    text: str, digest: bytes, alternatives: int, words: Sequence[str], *, at: int | None = None
) -> dict[str, Any]:
    """A choice's ``logprobs``: a chat's, or with ``at``, the characters that come before the text,
    a completion's."""
    tokens = tokens_of(text)
    luck, chosen = _chosen(tokens, digest)
    best = [
        [token, *(" " + words[(byte + n) % len(words)] for n in range(1, alternatives))]
        for token, byte in zip(tokens, luck, strict=False)
    ]
    if at is None:
        content = [
            _entry(token, own) | {"top_logprobs": _ranked(names[:alternatives], own)}
            for token, own, names in zip(tokens, chosen, best, strict=False)
        ]
        return {"content": content, "refusal": None}
    return {
        "tokens": tokens,
        "token_logprobs": chosen[: len(tokens)],
        "top_logprobs": [
            {name: own - n * _STEP for n, name in reversed(list(enumerate(names)))}
            for own, names in zip(chosen, best, strict=False)
        ],
        "text_offset": [at + len("".join(tokens[:n])) for n in range(len(tokens))],
    }


def likeliest(texts: Sequence[str], digests: Sequence[bytes], count: int) -> list[int]:
    """The places of the ``count`` texts that are told: the likeliest by token, best first, or
    all as they are."""
    if len(texts) == count:
        return list(range(count))
    chosen = [
        _chosen(tokens_of(text), lucky)[1] for text, lucky in zip(texts, digests, strict=True)
    ]
    means = [math.fsum(one) / len(one) for one in chosen]
    return sorted(range(len(texts)), key=lambda at: -means[at])[:count]


def part_of(logprobs: dict[str, Any], first: int, upto: int) -> dict[str, Any]:
    """The tokens ``first`` to ``upto`` of a choice's ``logprobs``, without the last."""
    return {name: part and part[first:upto] for name, part in logprobs.items()}


def _chosen(tokens: Sequence[str], digest: bytes) -> tuple[bytes, list[float]]:
    """A byte for each token, and the logprob that it stands for."""
    luck = hashlib.shake_128(digest).digest(max(1, len(tokens)))
    return luck, [-(byte + 1) / 64 for byte in luck]


def _ranked(names: Sequence[str], best: float) -> list[dict[str, Any]]:
    return [_entry(name, best - n * _STEP) for n, name in enumerate(names)]


def _entry(token: str, logprob: float) -> dict[str, Any]:
    return {"token": token, "bytes": list(token.encode()), "logprob": logprob}
