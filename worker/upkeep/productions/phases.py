"""What each kind of phase asks for an item, and what it makes of the answers.

A phase of a new kind is a ``Runner`` and its line in ``running.runner_of``: everything else goes by
the template's plan.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

from shared.productions.gates import UNFINISHED, Gates
from shared.productions.plan import Phase, PhaseKind, Plan, chat_body, seed_of
from shared.productions.rendering import Renderer, RowRefused
from shared.productions.schemas import Schema
from shared.productions.template import Template
from worker.upkeep.productions.answers import Answer, Answers
from worker.upkeep.productions.joining import Item
from worker.upkeep.productions.records import FAILED, LIKELIHOOD, REJECTED, STOPPED, Record
from worker.upkeep.productions.references import References

NEVER_RUN = frozenset({"batch_cancelled", "batch_expired"})
"""Codes of rows that their batch did not come to."""
CUT = "length"
"""Of answers that reached ``max_tokens``."""

Request = tuple[str, dict[str, Any]]
"""A row of a batch: its custom id, and the body of the call."""


@dataclass(frozen=True, slots=True)
class Work:
    """What a production is, for every phase of it."""

    template: Template
    renderer: Renderer
    gates: Gates
    plan: Plan
    models: tuple[str, ...]
    """The model of each number."""
    seed: int
    references: References
    """What its lookups look in."""


class Runner(Protocol):
    """One phase of one round."""

    @property
    def endpoint(self) -> str:
        """That every row of its batch calls."""

    def requests(self, item: Item) -> Iterator[Request]:
        """What is asked for the item. Records for which nothing can be asked are ended."""

    def read(self, items: Iterable[Item], answers: Answers, why_none: str) -> Iterator[Item]:
        """The same items, some of which may be held for a while: what ``requests`` asked for is
        read, row by row in the same order. ``why_none`` is the code of rows that have no answer."""


def phases_of(plan: Plan, named: Mapping[str, str], sampling: Mapping[str, Any]) -> list[Phase]:
    """The plan's phases with the models that their names stand for, and the call's own sampling,
    which comes first."""
    return [
        replace(
            phase,
            model=phase.model and named[phase.model],
            sampling=phase.sampling.model_copy(update=dict(sampling)),
        )
        for phase in plan.phases
    ]


class Writing:
    """A step, or the body: a chat for each candidate."""

    def __init__(self, work: Work, phase: Phase, round_number: int) -> None:
        self._work = work
        self._phase = phase
        self._round = round_number
        of_a_step = phase.kind is PhaseKind.STEP and phase.schema is not None
        self._schema = Schema(phase.schema) if of_a_step and phase.schema else None
        self._wants_its_end = work.gates.wants_an_end

    @property
    def endpoint(self) -> str:
        return self._phase.endpoint

    def requests(self, item: Item) -> Iterator[Request]:
        for record in open_records(item):
            try:
                body = self._body(item, record)
            except RowRefused as refused:
                record.end(FAILED, refused.code, refused.message)
            else:
                yield str(record.place), body

    def _body(self, item: Item, record: Record) -> dict[str, Any]:
        work, phase = self._work, self._phase
        messages = work.renderer.messages(
            item.columns,
            step=phase.step,
            audience=item.about,
            examples=work.references.examples_of(record),
            sources=work.references.sources_of(record),
            texts=record.texts,
        )
        seed = seed_of(work.seed, phase.name, record.place, self._round)
        return chat_body(phase, messages, model=work.models[record.model], seed=seed)

    def read(self, items: Iterable[Item], answers: Answers, why_none: str) -> Iterator[Item]:
        for item in items:
            self._take(item, answers, why_none)
            yield item

    def _take(self, item: Item, answers: Answers, why_none: str) -> None:
        for record in open_records(item):
            answer = answers.take(str(record.place))
            if answer is None:
                record.end(STOPPED, why_none, "its batch ended before it had an answer")
            elif answer.code is not None:
                verdict = STOPPED if answer.code in NEVER_RUN else FAILED
                record.end(verdict, answer.code, answer.message)
            else:
                self._note(item, record, answer)

    def _note(self, item: Item, record: Record, answer: Answer) -> None:
        text, reason = answer.chat()
        if self._phase.kind is PhaseKind.OUTPUT:
            record.text = text
            if self._phase.logprobs and (likely := answer.mean_logprob()) is not None:
                record.extras = {**record.extras, LIKELIHOOD: likely}
        elif self._phase.step is not None:
            record.texts = {**record.texts, self._phase.step: text}
        if self._phase.schema is not None and reason == CUT:
            record.end(REJECTED, UNFINISHED, "max_tokens cut it before it was whole JSON")
        elif self._phase.kind is PhaseKind.OUTPUT and self._wants_its_end and reason == CUT:
            record.end(REJECTED, UNFINISHED, "max_tokens cut it before its end")
        elif self._phase.kind is PhaseKind.OUTPUT:
            self._judge(item, record, text)
        elif not text.strip():
            record.end(REJECTED, "empty", f"the text of '{self._phase.step}' is empty")
        elif self._schema is not None and (problem := self._schema.problem(text)) is not None:
            record.end(REJECTED, "schema", f"'{self._phase.step}': {problem}")

    def _judge(self, item: Item, record: Record, text: str) -> None:
        try:
            refusal = self._work.gates.judge(
                text,
                item.columns,
                audience=item.about,
                sources=[each.text for each in self._work.references.sources_of(record)],
            )
        except RowRefused as refused:
            record.end(FAILED, refused.code, refused.message)
            return
        if refusal is not None:
            record.end(REJECTED, refusal.gate, refusal.message)


def open_records(item: Item) -> list[Record]:
    """Those that are being worked on."""
    return [record for record in item.records if record.verdict is None]
