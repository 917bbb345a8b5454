"""A claimed production as its template, its plan and its data."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec

from shared.lifecycle import BadLine
from shared.lifecycle.working import Claim
from shared.productions.augmenting import augmenting
from shared.productions.gates import Gates
from shared.productions.plan import SEED_BITS, Phase, plan_of
from shared.productions.rendering import Renderer
from shared.productions.tables import Table, TableKind, TableRefused
from shared.productions.template import Template, parse_template
from shared.specs.productions import ProductionSpec
from shared.storage.base import Store
from worker.tuning.data.source import Source
from worker.upkeep.productions.augmenting import augmented_table
from worker.upkeep.productions.augmenting_gates import AugmentingGates
from worker.upkeep.productions.data import open_table
from worker.upkeep.productions.joining import Numbered
from worker.upkeep.productions.language import language_of
from worker.upkeep.productions.phases import Work, phases_of
from worker.upkeep.productions.references import NONE, References


class State(msgspec.Struct):
    """What the passes over the data have left; it is a row's JSON between two claims."""

    columns: list[str] = []
    """Of the data …"""
    types: dict[str, str] = {}
    """… and what those are that are not text."""
    audiences: list[dict[str, Any]] = []
    asked: str | None = None
    """The key of the records that the newest batch is about; None: nothing was asked."""
    judged: list[str] = []
    """Keys of the records of rounds that are over, in their order."""
    duplicates: str | None = None
    """The key of what is remembered of the texts that were kept."""
    references: str | None = None
    """The key of the examples and passages that rows are compared with."""
    kept: int = 0
    regenerated: int = 0
    refusals: dict[str, int] = {}

    def as_json(self) -> dict[str, Any]:
        found: dict[str, Any] = msgspec.to_builtins(self)
        return found


def read_state(found: dict[str, Any]) -> State:
    return msgspec.convert(found, State)


@dataclass(frozen=True, slots=True)
class Order:
    """What a production was asked."""

    spec: ProductionSpec
    template: Template
    work: Work
    phases: list[Phase]

    @property
    def retries(self) -> int:
        return self.template.head.retries


def read_order(
    claim: Claim, audiences: list[dict[str, Any]], references: References = NONE
) -> Order:
    """``audiences`` are as ``State`` has them, or the template's own."""
    spec = ProductionSpec.model_validate_json(claim.spec)
    template = parse_template(spec.template)
    plan = plan_of(template, model=spec.models[0], audiences=max(1, len(audiences)))
    plan = replace(plan, models=spec.models, n=spec.n)
    own = spec.sampling.get("seed", template.head.sampling.seed)
    work = Work(
        template=template,
        renderer=Renderer(template),
        gates=_gates(template),
        plan=plan,
        models=tuple(spec.named[name] for name in spec.models),
        seed=seed_of_job(claim.job_id) if own is None else own,
        references=references,
    )
    return Order(spec, template, work, phases_of(plan, spec.named, spec.sampling))


def _gates(template: Template) -> Gates:
    task = augmenting(template.head)
    if task is None:
        return Gates(template, language_of)
    return AugmentingGates(template, language_of, task)


def seed_of_job(job_id: str) -> int:
    """The same on every attempt."""
    return int.from_bytes(sha256(job_id.encode()).digest()[:8]) >> (64 - SEED_BITS)


def source_of(store: Store, key: str | None, kind: str) -> Source:
    """A table of the tenant's. Raises what the store raises."""
    if key is None:
        raise AssertionError("a production's files stay for as long as it is open")
    return Source(f"data.{kind}", store.size(key), lambda: store.read(key))


def table_of(order: Order, source: Source, scratch: Path | None) -> Table:
    """The rows that texts are written for: those of the data, or made of them. Raises
    TableRefused, and what opening the data raises."""
    task = augmenting(order.template.head)
    if task is not None:
        return augmented_table(source, task, order.work.seed)
    return open_table(source, kind=TableKind(order.spec.data_format), scratch=scratch)


@contextmanager
def good_rows(order: Order, source: Source, scratch: Path | None) -> Iterator[Iterator[Numbered]]:
    """Rows of data that were found good."""
    table = table_of(order, source, scratch)

    def numbered() -> Generator[Numbered]:
        for row in table.rows:
            if isinstance(row, BadLine):
                raise TableRefused(row)
            yield row.number, row.values

    rows = numbered()
    try:
        yield rows
    finally:
        rows.close()
        close = getattr(table.rows, "close", None)
        if close is not None:
            close()
