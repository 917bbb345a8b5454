"""``python -m bench.fairness_simulation``: what fair claims cost and save, without a clock.

Two loads under three policies, and the bound beside what was seen. The same numbers come out on any
machine.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import fmean

from bench.simulation.load import Load
from bench.simulation.plant import Plant, idle_wait
from bench.simulation.policies import Fair, Fifo, Greedy, Policy

POLICIES: dict[str, Callable[[Load], Policy]] = {
    "fair": lambda load: Fair(load.weights),
    "first come": lambda load: Fifo(),
    "greedy affinity": lambda load: Greedy(),
}


@dataclass(frozen=True, slots=True)
class Seen:
    """One load under one policy."""

    slowdowns: dict[str, float]
    """Of each tenant: how many times longer than alone its requests took, on average."""
    longest: dict[str, float]
    """Of each tenant: the longest wait of a request, in seconds."""
    loads: int

    @property
    def worst(self) -> float:
        return max(self.slowdowns.values())


def see(load: Load, policy: str, *, but: tuple[str, ...] = ()) -> Seen:
    """Runs a load; tenants named ``but`` are a part of it and are not judged."""
    make = POLICIES[policy]
    outcome = Plant(load, make(load)).run()
    alone: dict[object, float] = {}
    found: dict[str, list[tuple[float, float]]] = {}
    for request, wait in outcome.waits.items():
        if request.tenant in but:
            continue
        if request.shards not in alone:
            alone[request.shards] = idle_wait(request, load, make(load))
        found.setdefault(request.tenant, []).append((wait, wait / alone[request.shards]))
    return Seen(
        {tenant: fmean(ratio for _, ratio in waits) for tenant, waits in sorted(found.items())},
        {tenant: max(wait for wait, _ in waits) for tenant, waits in sorted(found.items())},
        outcome.loads,
    )
