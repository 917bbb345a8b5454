"""What the fake engine says of texts: labels whose scores derive from a hash of text and model."""

from __future__ import annotations

import hashlib

import msgspec

LABELS = ("culture", "finance", "science", "sports", "travel")
DEFAULT_TOP_K = 10


class ClassificationRequest(msgspec.Struct):
    """The fields that matter here; validation is the API's work."""

    input: str | list[str]
    top_k: int | None = None

    @property
    def texts(self) -> list[str]:
        return [self.input] if isinstance(self.input, str) else self.input


class _Score(msgspec.Struct):
    label: str
    score: float


class _Classification(msgspec.Struct):
    index: int
    label: str
    score: float
    scores: list[_Score]
    truncated: bool = False
    object: str = "classification"


class _Usage(msgspec.Struct):
    prompt_tokens: int
    total_tokens: int


class _Classifications(msgspec.Struct):
    model: str
    data: list[_Classification]
    usage: _Usage
    object: str = "list"


def classifications(spec: ClassificationRequest, model: str) -> tuple[bytes, int]:
    """The body of a ``list`` of ``classification`` objects, and how many words were read."""
    data = [_classify(index, text, model, spec.top_k) for index, text in enumerate(spec.texts)]
    read = sum(len(text.split()) for text in spec.texts)
    return msgspec.json.encode(_Classifications(model, data, _Usage(read, read))), read


def _classify(index: int, text: str, model: str, top_k: int | None) -> _Classification:
    digest = hashlib.blake2b(f"{model}\0{text}".encode(), digest_size=len(LABELS)).digest()
    weights = [byte + 1 for byte in digest]
    scores = [_Score(label, w / sum(weights)) for label, w in zip(LABELS, weights, strict=True)]
    scores.sort(key=lambda one: (-one.score, one.label))
    best = scores[0]
    return _Classification(index, best.label, best.score, scores[: top_k or DEFAULT_TOP_K])
