"""``python -m bench.fairness_simulation``: what fair claims cost and save, without a clock.

Two loads under three policies, and the bounds beside what was seen. Every machine gets the same
numbers. ``--picture FILE.svg`` draws the waits of the mixed load.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from rich.console import Console
from rich.table import Table

from bench.simulation.load import Load, flood, mixed
from bench.simulation.picture import bars
from bench.simulation.plant import Plant, idle_wait
from bench.simulation.policies import Fair, Fifo, Greedy, Policy

FLOOD_SECONDS = 2.0
FLOOD_UNTIL = 20_000.0
"""Enough for the million rows, so that first come, first served gets to the others too."""
FLOOD_CALLS = tuple(11.3 + 2.7 * number for number in range(12))
SMALL_AT = 21.5
FLOODED = ("B", "C")
MOST_LOADS = 1.3
"""Of fair claims, over those of greedy affinity."""

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
    mean: float
    """Seconds that a request waited, on average."""
    longest: float
    """Seconds."""
    over: float
    """The longest wait over twice what the request takes alone, and one shard."""
    loads: int

    @property
    def worst(self) -> float:
        return max(self.slowdowns.values())


def see(load: Load, policy: str, *, only: Sequence[str] = ()) -> Seen:
    """Runs a load; with ``only``, its other tenants are a part of it and are not judged."""
    make = POLICIES[policy]
    outcome = Plant(load, make(load)).run()
    shard = max(item.seconds for request in load.requests for item in request.shards)
    alone: dict[object, float] = {}
    ratios: dict[str, list[float]] = {}
    waits, over = [], 0.0
    for request, wait in outcome.waits.items():
        if only and request.tenant not in only:
            continue
        if request.shards not in alone:
            alone[request.shards] = idle_wait(request, load, make(load))
        idle = alone[request.shards]
        ratios.setdefault(request.tenant, []).append(wait / idle)
        waits.append(wait)
        over = max(over, wait / (2 * idle + shard))
    slowdowns = {tenant: fmean(found) for tenant, found in sorted(ratios.items())}
    return Seen(slowdowns, fmean(waits), max(waits), over, outcome.loads)


def flooded(policy: str) -> Seen:
    """Ten rows and twelve calls behind a million rows."""
    load = flood(seconds=FLOOD_SECONDS, calls=FLOOD_CALLS, small_at=SMALL_AT, until=FLOOD_UNTIL)
    return see(load, policy, only=FLOODED)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.fairness_simulation")
    parser.add_argument("--picture", type=Path, metavar="FILE.svg")
    picture: Path | None = parser.parse_args().picture
    console = Console()
    behind = {policy: flooded(policy) for policy in POLICIES}
    console.print(_flood_table(behind))
    load = mixed()
    seen = {policy: see(load, policy) for policy in POLICIES}
    console.print(_mixed_table(seen))
    ratio = seen["fair"].loads / seen["greedy affinity"].loads
    console.print(
        f"bound: behind a flood nobody waits longer than 2 x alone + one shard;"
        f" fair: {behind['fair'].over:.2f} of that",
        f"bound: models are loaded at most {MOST_LOADS} x as often as by greedy affinity;"
        f" fair: {ratio:.2f}",
        sep="\n",
        highlight=False,
    )
    if picture is not None:
        slowdowns = {policy: found.slowdowns for policy, found in seen.items()}
        picture.write_text(bars("How many times longer than alone requests take", slowdowns))


def _flood_table(seen: dict[str, Seen]) -> Table:
    table = Table(
        "policy", "mean wait s", "longest s", "worst slowdown", "longest / bound",
        title="Ten rows and twelve calls behind a million rows",
    )  # fmt: skip
    for policy, found in seen.items():
        table.add_row(
            policy,
            f"{found.mean:.1f}",
            f"{found.longest:.1f}",
            f"{found.worst:.2f}",
            f"{found.over:.2f}",
        )
    return table


def _mixed_table(seen: dict[str, Seen]) -> Table:
    table = Table(
        "policy", "worst slowdown", "mean wait s", "models loaded",
        title="Half a day of twelve tenants, six models and six workers with room for one",
    )  # fmt: skip
    for policy, found in seen.items():
        table.add_row(policy, f"{found.worst:.1f}", f"{found.mean:.0f}", str(found.loads))
    return table


if __name__ == "__main__":
    main()
