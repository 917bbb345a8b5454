"""A plan: the steps of a job that makes several kinds of output, and what each needs.

Pure. A plan is made once, when the job is accepted (or its batch row is unfolded), and frozen in
the ``steps`` table; a step's body may refer to results of the steps it needs
(``shared.plans.references``) and is completed when the step is run.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from shared.db.models import Model

BUNDLE = "bundle"
"""The endpoint of a step that packs what the others made; upkeep runs it, no engine does."""


@dataclass(frozen=True, slots=True)
class Step:
    """One node of the graph. It names only steps that stand before it in the plan."""

    name: str
    """Readable and unique in the plan: ``headline en 1``, ``picture 64x64 2``, ``voice-over en``."""
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
