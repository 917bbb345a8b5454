"""The line-up of a pool: who waits there, what each was given, and what each would run next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Waiting:
    """A shard that may be claimed."""

    shard_id: int
    rows: int
    work: float
    """Expected seconds of an engine at full load, above zero."""
    model: str | None
    """None: it needs none, or it is not known."""
    priority: int
    seq: int
    """When it came into its tenant's window: shards that came later have a larger one."""


@dataclass(frozen=True, slots=True)
class InLine:
    """A tenant that waits in a pool."""

    tenant_id: str
    weight: float
    start: float
    """Virtual time of its next shard: what it was given by its weight, at least the pool's time."""
    served: bool
    """Whether a worker runs a shard of it in this pool."""
    room: int | None
    """How many more shards of it may run; None: any number."""
    shards: Sequence[Waiting]
    """Its next ones, by priority and then by ``seq``."""
    more: bool
    """Whether there are, or may be, others behind ``shards``."""
