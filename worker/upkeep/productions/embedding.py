"""Looking up: texts of the items are embedded in one batch with what they are compared with.

The batch begins with the corpus, many texts a row; behind it comes a row for each item. So the
corpus is embedded once, and whoever reads the answers has all of it before the first item.
"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from shared.productions.plan import Phase, Place
from shared.productions.rendering import RowRefused
from worker.upkeep.productions.answers import Answer, Answers
from worker.upkeep.productions.joining import Item
from worker.upkeep.productions.phases import NEVER_RUN, Request, open_records
from worker.upkeep.productions.records import FAILED, STOPPED, Record

TEXTS_A_ROW = 32
CHARACTERS_A_ROW = 100_000
MOST_CHARACTERS = 8_000
"""Of a text that is embedded: no model here reads more of it."""
BLOCK_ITEMS = 64
"""That are compared with the corpus together."""
DIGITS = 6
"""Of a score: what differs less is alike, and the earlier one comes first."""
UNREADABLE = "invalid_answer"

Vectors = npt.NDArray[np.float32]


class Found(NamedTuple):
    """One of the corpus, and its cosine with a text."""

    at: int
    score: float


@dataclass(frozen=True, slots=True)
class Missing:
    """Why there is no vector: how the records end that needed it."""

    verdict: str
    code: str
    message: str


class _Embedding(msgspec.Struct):
    embedding: str


class _Embeddings(msgspec.Struct):
    data: list[_Embedding]


_decode = msgspec.json.Decoder(_Embeddings).decode


class Lookup:
    """A ``Runner`` for phases that compare items with a corpus. Who inherits says which text of an
    item is looked up (``text``), and what is made of what was found (``take``)."""

    extra: str
    """Of a record, that says what was found for it."""

    def __init__(self, phase: Phase, corpus: Sequence[str], most: int) -> None:
        """``most``: how many of the corpus are looked for."""
        self._phase = phase
        self._corpus = corpus
        self._most = most
        self._last: tuple[int, str] | None = None
        """The row and the text that were asked or read last: its next audience may be the same."""
        self._answer: npt.NDArray[np.float32] | Missing | None = None
        self._vectors: Vectors | Missing | None = None
        self._is_begun = False

    @property
    def endpoint(self) -> str:
        return self._phase.endpoint

    @property
    def corpus_rows(self) -> int:
        """How many rows of a batch it takes."""
        return sum(1 for _ in _grouped(self._corpus))

    def text(self, item: Item) -> str:
        """What is looked up; nothing is found for an empty one. Raises RowRefused."""
        raise NotImplementedError

    def take(self, item: Item, records: Sequence[Record], found: Sequence[Found]) -> None:
        """What was found for the records of an item, the nearest first."""
        raise NotImplementedError

    # --- asking ---------------------------------------------------------------------------------

    def requests(self, item: Item) -> Iterator[Request]:
        records = self._waiting(item)
        if not records:
            return
        try:
            text = self.text(item).strip()[:MOST_CHARACTERS]
        except RowRefused as refused:
            for record in records:
                record.end(FAILED, refused.code, refused.message)
            return
        if not text:
            self.take(item, records, [])
        elif (item.row, text) != self._last:
            self._last = (item.row, text)
            if not self._is_begun:
                self._is_begun = True
                for number, texts in enumerate(_grouped(self._corpus)):
                    yield f"corpus.{number}", self._body(texts)
            yield str(Place(item.row, item.audience)), self._body(text)

    def _body(self, texts: str | list[str]) -> dict[str, Any]:
        return {
            "model": self._phase.model,
            "input": texts,
            "encoding_format": "base64",
            "truncate": True,
        }

    def _waiting(self, item: Item) -> list[Record]:
        return [one for one in open_records(item) if self.extra not in one.extras]

    # --- reading --------------------------------------------------------------------------------

    def read(self, items: Iterable[Item], answers: Answers, why_none: str) -> Iterator[Item]:
        block: list[Item] = []
        wanted: list[tuple[Item, npt.NDArray[np.float32]]] = []
        for item in items:
            block.append(item)
            if records := self._waiting(item):
                answer = self._answer_to(item, answers, why_none)
                if isinstance(answer, Missing):
                    for record in records:
                        record.end(answer.verdict, answer.code, answer.message)
                else:
                    wanted.append((item, answer))
            if len(block) == BLOCK_ITEMS:
                self._compare(wanted)
                yield from block
                block, wanted = [], []
        self._compare(wanted)
        yield from block

    def _answer_to(
        self, item: Item, answers: Answers, why_none: str
    ) -> npt.NDArray[np.float32] | Missing:
        asked = (item.row, self.text(item).strip()[:MOST_CHARACTERS])
        if self._answer is not None and asked == self._last:
            return self._answer
        self._last = asked
        if self._vectors is None:
            self._vectors = self._read_corpus(answers, why_none)
        place = str(Place(item.row, item.audience))
        found = _vectors_of(answers.take(place), 1, why_none)
        if isinstance(self._vectors, Missing):
            self._answer = self._vectors
        elif isinstance(found, Missing):
            self._answer = found
        elif found.shape[1] != self._vectors.shape[1]:
            self._answer = Missing(FAILED, UNREADABLE, "the embedding has another length")
        else:
            self._answer = found[0]
        return self._answer

    def _read_corpus(self, answers: Answers, why_none: str) -> Vectors | Missing:
        """All of it is taken from the answers, also when a part is missing."""
        made: Vectors | None = None
        missing: Missing | None = None
        at = 0
        for number, texts in enumerate(_grouped(self._corpus)):
            part = _vectors_of(answers.take(f"corpus.{number}"), len(texts), why_none)
            if isinstance(part, Missing):
                message = f"what is looked up in could not be embedded: {part.message}"
                missing = missing or Missing(part.verdict, part.code, message)
                continue
            if made is None:
                made = np.empty((len(self._corpus), part.shape[1]), np.float32)
            if part.shape[1] != made.shape[1]:
                missing = missing or Missing(FAILED, UNREADABLE, "embeddings differ in length")
                continue
            made[at : at + len(texts)] = part
            at += len(texts)
        if missing is not None or made is None:
            return missing or Missing(FAILED, UNREADABLE, "there is nothing to look up in")
        return made

    def _compare(self, wanted: Sequence[tuple[Item, npt.NDArray[np.float32]]]) -> None:
        if not wanted or not isinstance(self._vectors, np.ndarray):
            return
        scores = cosines(np.stack([vector for _, vector in wanted]), self._vectors)
        for (item, _), one in zip(wanted, scores, strict=True):
            self.take(item, self._waiting(item), nearest(one, self._most))


def cosines(texts: Vectors, corpus: Vectors) -> Vectors:
    """(texts, corpus). Both are of length 1, or 0."""
    found: Vectors = np.round(texts @ corpus.T, DIGITS)
    return found


def nearest(scores: npt.NDArray[np.float32], most: int) -> list[Found]:
    """The highest, at most ``most``; the earlier of two that are as high."""
    order = np.arange(len(scores))
    if most < len(scores):
        order = np.flatnonzero(scores >= np.partition(scores, -most)[-most])
    order = order[np.argsort(-scores[order], kind="stable")][:most]
    return [Found(int(at), round(float(scores[at]), DIGITS)) for at in order]


def _grouped(texts: Sequence[str]) -> Iterator[list[str]]:
    """As they go into the rows of a batch."""
    group: list[str] = []
    characters = 0
    for text in texts:
        cut = text[:MOST_CHARACTERS]
        if group and (len(group) == TEXTS_A_ROW or characters + len(cut) > CHARACTERS_A_ROW):
            yield group
            group, characters = [], 0
        group.append(cut)
        characters += len(cut)
    if group:
        yield group


def _vectors_of(answer: Answer | None, count: int, why_none: str) -> Vectors | Missing:
    """(count, dimensions), each of length 1, or 0."""
    if answer is None:
        return Missing(STOPPED, why_none, "its batch ended before it had an answer")
    if answer.code is not None:
        verdict = STOPPED if answer.code in NEVER_RUN else FAILED
        return Missing(verdict, answer.code, answer.message or "it could not be embedded")
    data = _decode(answer.body or b"{}").data
    vectors = [np.frombuffer(b64decode(one.embedding), "<f4") for one in data]
    lengths = {len(vector) for vector in vectors}
    if len(vectors) != count or len(lengths) != 1 or lengths == {0}:
        return Missing(FAILED, UNREADABLE, "these are not the embeddings that were asked for")
    made = np.nan_to_num(np.stack(vectors).astype(np.float32), posinf=0, neginf=0)
    norms = np.linalg.norm(made, axis=1, keepdims=True)
    unit: Vectors = np.divide(made, norms, out=np.zeros_like(made), where=norms > 0)
    return unit
