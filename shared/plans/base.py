"""A plan: the steps of a job that makes several kinds of output, and what each needs.

Pure. A plan is made once, when the job is accepted (or its batch row is unfolded), and frozen in
the ``steps`` table; a step's body may refer to results of the steps it needs
(``shared.plans.references``) and is completed when the step is run.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from shared.db.models import Model
from shared.errors import PressrunError

BUNDLE = "bundle"
"""The endpoint of a step that packs what the others made; upkeep runs it, no engine does."""


class PlanError(PressrunError):
    """A step's body can't be completed: it refers to what its steps did not deliver. The plan or
    an engine is wrong, never the tenant, so it counts as an internal error."""


@dataclass(frozen=True, slots=True)
class Step:
    """One node of the graph. It names only steps that stand before it in the plan."""

    name: str
    """Readable and unique in the plan: ``headline en 1``, ``picture 1 64x64``, ``video en 1``."""
    endpoint: str
    """An inference endpoint, or ``BUNDLE``."""
    pool: str
    model: str | None
    body: dict[str, Any]
    """The endpoint's body; any value in it may be a reference."""
    needs: tuple[str, ...] = ()


Offers = Callable[[str, str | None, str], Model]
"""(endpoint, model id or None for the tenant's first, the field to blame) → Model.

Raises ModelNotFound with ``param``."""


@dataclass(frozen=True, slots=True)
class Seeds:
    """A seed for each step: the same for the same job and step on every attempt.

    With a seed in the spec two jobs make the same; without one, each row draws from its own id.
    """

    seed: int | None
    row: str

    def of(self, name: str) -> int:
        """0 to 2**32 - 1: short enough to read out and to type again."""
        origin = self.row if self.seed is None else str(self.seed)
        digest = hashlib.blake2b(f"{origin}\0{name}".encode(), digest_size=4).digest()
        return int.from_bytes(digest)
