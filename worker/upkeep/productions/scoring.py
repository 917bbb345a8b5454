"""The best of several by a model: texts that have passed their gates are scored by a classifier."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from shared.productions.plan import Phase
from shared.specs.classifications import MAX_SCORES
from worker.upkeep.productions.answers import Answer, Answers
from worker.upkeep.productions.joining import Item
from worker.upkeep.productions.phases import NEVER_RUN, Request, Work, open_records
from worker.upkeep.productions.records import FAILED, Record
from worker.upkeep.productions.settling import SCORE, UNSCORED

NO_LABEL = "label_not_found"


class _Score(msgspec.Struct):
    label: str
    score: float


class _Classified(msgspec.Struct):
    scores: list[_Score] = []


class _Classifications(msgspec.Struct):
    data: list[_Classified]


_decode = msgspec.json.Decoder(_Classifications).decode


class Scoring:
    """A ``Runner``: what a classifier says of each text."""

    def __init__(self, work: Work, phase: Phase) -> None:
        self._phase = phase
        self._gates = work.gates
        best_of = work.template.head.best_of
        if best_of is None or best_of.label is None:
            raise AssertionError("a phase of scores without a label")
        self._label = best_of.label

    @property
    def endpoint(self) -> str:
        return self._phase.endpoint

    def requests(self, item: Item) -> Iterator[Request]:
        for record in open_records(item):
            text = record.text or ""
            said = self._gates.said(text).strip() or text
            body = {"model": self._phase.model, "input": said, "top_k": MAX_SCORES}
            yield str(record.place), body

    def read(self, items: Iterable[Item], answers: Answers, why_none: str) -> Iterator[Item]:
        """A text that nobody came to score is as good as its gates found it: it stays, behind all
        that have a score."""
        for item in items:
            for record in open_records(item):
                answer = answers.take(str(record.place))
                if answer is None or answer.code in NEVER_RUN:
                    record.extras = {**record.extras, SCORE: UNSCORED}
                else:
                    self._read(record, answer)
            yield item

    def _read(self, record: Record, answer: Answer) -> None:
        if answer.code is not None:
            record.end(FAILED, answer.code, answer.message)
            return
        (found,) = _decode(answer.body or b"{}").data
        scores = {one.label: one.score for one in found.scores}
        if self._label in scores:
            record.extras = {**record.extras, SCORE: scores[self._label]}
            return
        known = ", ".join(f"'{name[:40]}'" for name in sorted(scores)[:10]) or "none"
        record.end(FAILED, NO_LABEL, f"the classifier has no label '{self._label}'; it has {known}")
