"""What a classifier's outputs mean: a label for a text, or the entities in it."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from transformers import AutoModelForSequenceClassification, AutoModelForTokenClassification

from shared.errors import UnsupportedParameter
from shared.specs import ClassificationSpec
from worker.engines.base import EngineFailed
from worker.engines.entities import (
    CharacterSpan,
    Entity,
    TagReader,
    as_bio,
    entities_of,
    first_pieces,
    words_of,
)
from worker.engines.loading import LoadedModel

DEFAULT_TOP_K = 10
_DIGITS = 6
_UNKNOWN_CONTEXT = 512
_NO_LIMIT = 2**20
"""Tokenizers that know no limit say a number far beyond this."""


class Head(Protocol):
    """Reads the outputs of one kind of classifier."""

    kind: str

    def check(self, spec: ClassificationSpec) -> None:
        """Raises UnsupportedParameter for what this kind does not do."""

    def answer(
        self,
        spec: ClassificationSpec,
        text: str,
        offsets: list[CharacterSpan],
        logits: NDArray[np.float32],
    ) -> dict[str, Any]:
        """The members of a ``classification`` object. ``logits`` are (labels,) or (tokens, labels),
        ``offsets`` each token's characters in ``text``."""


class TextHead:
    """One label for a text; several at once when the model was trained so."""

    kind = "text_classification"

    def __init__(self, labels: list[str], *, several: bool) -> None:
        self._labels = labels
        self._several = several

    def check(self, spec: ClassificationSpec) -> None:
        return

    def answer(
        self,
        spec: ClassificationSpec,
        text: str,
        offsets: list[CharacterSpan],
        logits: NDArray[np.float32],
    ) -> dict[str, Any]:
        shares = 1 / (1 + np.exp(-logits)) if self._several else np.exp(log_softmax(logits))
        order = np.argsort(-shares, kind="stable")[: spec.top_k or DEFAULT_TOP_K]
        scores = [{"label": self._labels[i], "score": _rounded(shares[i])} for i in order]
        return {**scores[0], "scores": scores}


class EntityHead:
    """A label for each word, read as entities."""

    kind = "token_classification"

    def __init__(self, labels: list[str]) -> None:
        self._labels = labels
        self._reader = TagReader(labels)

    def check(self, spec: ClassificationSpec) -> None:
        if spec.top_k is not None:
            message = "'top_k' is for models that label texts; this one finds entities"
            raise UnsupportedParameter(message, param="top_k")

    def answer(
        self,
        spec: ClassificationSpec,
        text: str,
        offsets: list[CharacterSpan],
        logits: NDArray[np.float32],
    ) -> dict[str, Any]:
        words = words_of(text)
        pieces = first_pieces(words, offsets)
        spans = [word for word, piece in zip(words, pieces, strict=True) if piece is not None]
        chances = log_softmax(logits[[piece for piece in pieces if piece is not None]])
        path = self._reader.read(chances)
        sure = np.exp(chances[np.arange(len(path)), path])
        found = entities_of(as_bio([self._labels[number] for number in path]))
        return {"entities": [_entity(text, spans, sure, entity) for entity in found]}


def _entity(
    text: str, words: list[CharacterSpan], sure: NDArray[np.float32], found: Entity
) -> dict[str, Any]:
    """An entity's score is the mean of its words'."""
    start, end = words[found.start][0], words[found.end - 1][1]
    score = _rounded(sure[found.start : found.end].mean())
    return {
        "text": text[start:end],
        "label": found.label,
        "start": start,
        "end": end,
        "score": score,
    }


def log_softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Over the last axis."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    chances: NDArray[np.float32] = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return chances


def _rounded(share: Any) -> float:
    return round(float(share), _DIGITS)


def auto_class(config: Any) -> Any:
    """The class of transformers that loads a classifier with its head. Raises EngineFailed
    ``model_load_failed`` for a model without one, whose head would be drawn at random."""
    for name in config.architectures or []:
        if name.endswith("ForSequenceClassification"):
            return AutoModelForSequenceClassification
        if name.endswith("ForTokenClassification"):
            return AutoModelForTokenClassification
    kinds = ", ".join(config.architectures or ["unknown"])
    raise EngineFailed("model_load_failed", f"{kinds} has no head that classifies")


def head_of(loaded: LoadedModel) -> Head:
    """Raises EngineFailed ``model_load_failed`` for a head that gives no labels."""
    config = loaded.config
    names: dict[Any, str] = dict(config.id2label or {})
    labels = [str(names[number]) for number in sorted(names)]
    if auto_class(config) is AutoModelForTokenClassification:
        if not loaded.tokenizer.is_fast:
            raise EngineFailed("model_load_failed", "its tokenizer does not say where pieces are")
        return EntityHead(labels)
    if len(labels) == 1:
        raise EngineFailed("model_load_failed", "a head with one output is no classifier")
    several = config.problem_type == "multi_label_classification"
    return TextHead(labels, several=several)


def longest_input(config: Any, tokenizer: Any, limit: int | None = None) -> int:
    """Tokens of a text that a model reads; the rest is cut off."""
    context = getattr(config.get_text_config(), "max_position_embeddings", None)
    own = [tokenizer.model_max_length, context or _UNKNOWN_CONTEXT]
    known = [length for length in own if length < _NO_LIMIT]
    return int(min([*known, limit or _NO_LIMIT]))


def padding_token(config: Any, tokenizer: Any) -> int:
    """What rows are filled up with; a causal model finds a text's end by it."""
    for number in (config.pad_token_id, tokenizer.pad_token_id):
        if number is not None:
            return int(number)
    return int(tokenizer.eos_token_id or 0)


def as_numbers(logits: Tensor) -> NDArray[np.float32]:
    numbers: NDArray[np.float32] = logits.float().cpu().numpy()
    return numbers
