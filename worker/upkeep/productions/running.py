"""Which runner each kind of phase has."""

from __future__ import annotations

from collections.abc import Iterable

from shared.productions.plan import Phase, PhaseKind
from worker.upkeep.productions.documents import Finding
from worker.upkeep.productions.examples import Likening
from worker.upkeep.productions.phases import Runner, Work, Writing
from worker.upkeep.productions.scoring import Scoring

LOOKUPS = {PhaseKind.EXAMPLES: Likening, PhaseKind.DOCUMENTS: Finding}


def runner_of(work: Work, phase: Phase, round_number: int) -> Runner:
    """How the phase is run."""
    if phase.kind in LOOKUPS:
        return LOOKUPS[phase.kind](work, phase)
    if phase.kind is PhaseKind.SCORE:
        return Scoring(work, phase)
    return Writing(work, phase, round_number)


def rows_besides(work: Work, phases: Iterable[Phase]) -> int:
    """How many rows a batch may have that are no item's: those of what is looked up in."""
    lookups = [LOOKUPS[phase.kind](work, phase) for phase in phases if phase.kind in LOOKUPS]
    return max((lookup.corpus_rows for lookup in lookups), default=0)
