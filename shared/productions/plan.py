"""What a production generates, as data: its phases, its candidates, their ids and seeds.

A phase is one pass over the items: what is rendered, where it is sent and what is read from the
answers. Each candidate goes through every step on its own, so that two candidates share nothing but
their item.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from hashlib import sha256
from typing import Any

from shared.productions.specs import Sampling
from shared.productions.template import Template

SEED_BITS = 48
"""A seed is exact in any JSON reader's numbers."""


class PhaseKind(StrEnum):
    """How a phase's rows are made and its answers read."""

    EXAMPLES = "examples"
    """The row's text is embedded, and compared with the examples of a file."""
    DOCUMENTS = "documents"
    """The item's query is embedded, and compared with passages."""
    STEP = "step"
    """Messages of a step; its text is kept for later steps."""
    OUTPUT = "output"
    """Messages of the body; its text is judged and becomes an output."""
    SCORE = "score"
    """The outputs that passed their gates are scored by a classifier."""


ENDPOINTS: dict[PhaseKind, str] = {
    PhaseKind.EXAMPLES: "/v1/embeddings",
    PhaseKind.DOCUMENTS: "/v1/embeddings",
    PhaseKind.STEP: "/v1/chat/completions",
    PhaseKind.OUTPUT: "/v1/chat/completions",
    PhaseKind.SCORE: "/v1/classifications",
}


@dataclass(frozen=True, slots=True)
class Phase:
    """``name`` is unique in a plan. ``step`` is what ``Renderer.messages`` takes."""

    kind: PhaseKind
    name: str
    step: str | None = None
    model: str | None = None
    """The one model of this phase; None: each candidate's own."""
    schema: dict[str, Any] | None = None
    sampling: Sampling = field(default_factory=Sampling)
    logprobs: bool = False
    """Whether the answers tell how likely their tokens were."""

    @property
    def endpoint(self) -> str:
        return ENDPOINTS[self.kind]


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """Which candidate: of which row of the data (``TableRow.number``, from 1), audience, model and
    try at it (from 0). Places sort as the output does."""

    row: int
    audience: int = 0
    model: int = 0
    candidate: int = 0

    def __str__(self) -> str:
        return f"{self.row}.{self.audience}.{self.model}.{self.candidate}"

    @property
    def item(self) -> tuple[int, int]:
        return self.row, self.audience


@dataclass(frozen=True, slots=True)
class Plan:
    """``audiences`` is 1 where there are none."""

    phases: tuple[Phase, ...]
    models: tuple[str, ...]
    audiences: int
    n: int
    keeps_best: bool

    @property
    def candidates(self) -> int:
        """Generated for an item."""
        return self.n * len(self.models)

    @property
    def kept(self) -> int:
        """Lines of the output for an item."""
        return 1 if self.keeps_best else self.candidates

    def places(self, row: int) -> Iterator[Place]:
        """All candidates of a row, in order."""
        for audience in range(self.audiences):
            for model in range(len(self.models)):
                for candidate in range(self.n):
                    yield Place(row, audience, model, candidate)


def plan_of(template: Template, *, model: str | None = None, audiences: int | None = None) -> Plan:
    """``model`` is the call's, for a template that names none; ``audiences`` counts those of a
    file. Raises InvalidRequest where no model is named."""
    head = template.head
    counted = len(head.audiences) if isinstance(head.audiences, list) else 1
    return Plan(
        phases=tuple(_phases(template)),
        models=template.models(model),
        audiences=counted if audiences is None else audiences,
        n=head.n,
        keeps_best=head.best_of is not None,
    )


def _phases(template: Template) -> Iterator[Phase]:
    head = template.head
    if head.examples_from is not None:
        yield Phase(PhaseKind.EXAMPLES, "examples", model=head.examples_from.model)
    if head.documents is not None:
        yield Phase(PhaseKind.DOCUMENTS, "documents", model=head.documents.model)
    for step in head.steps:
        yield Phase(
            PhaseKind.STEP,
            f"step-{step.name}",
            step=step.name,
            model=step.model,
            schema=step.json_schema,
            sampling=_over(step.sampling, head.sampling),
        )
    yield Phase(
        PhaseKind.OUTPUT,
        "output",
        schema=head.json_schema,
        sampling=head.sampling,
        logprobs=head.best_of is not None and head.best_of.asks_model,
    )
    if head.best_of is not None and head.best_of.model is not None:
        yield Phase(PhaseKind.SCORE, "score", model=head.best_of.model)


def _over(own: Sampling | None, general: Sampling) -> Sampling:
    if own is None:
        return general
    return general.model_copy(update=own.model_dump(exclude_none=True))


def seed_of(seed: int, phase: str, place: Place, round_number: int) -> int:
    """The seed of one generation: the same on every attempt, another for every candidate, phase and
    round."""
    words = f"{seed}/{phase}/{place}/{round_number}".encode()
    return int.from_bytes(sha256(words).digest()[:8]) >> (64 - SEED_BITS)


def chat_body(
    phase: Phase,
    messages: Sequence[dict[str, str]],
    *,
    model: str,
    seed: int,
) -> dict[str, Any]:
    """The body of a call of a STEP or OUTPUT phase; ``model`` is the candidate's, ``seed`` comes
    from ``seed_of``."""
    sampling = phase.sampling.model_dump(exclude_none=True, exclude={"seed"})
    body: dict[str, Any] = {
        "model": phase.model or model,
        "messages": list(messages),
        **sampling,
        "seed": seed,
    }
    if phase.schema is not None:
        named = {"name": "output", "schema": phase.schema, "strict": True}
        body["response_format"] = {"type": "json_schema", "json_schema": named}
    if phase.logprobs:
        body["logprobs"] = True
    return body
