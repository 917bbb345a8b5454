"""How long a tenant can be made to wait by others, at worst.

With rivals that always have work, a tenant whose shards need ``work`` expected seconds is passed by
no more of a rival's than it would get in the same virtual time, and one shard that it took just
before: the proof is in docs/fairness.md, the check in ``bench.fairness_simulation``.
"""

from __future__ import annotations

from collections.abc import Sequence

from shared.fairness.choosing import PATIENCE


def rival_work(
    work: float,
    weight: float,
    rivals: Sequence[float],
    *,
    largest_shard: float,
    patience: float = PATIENCE,
    passed_over: bool = False,
) -> float:
    """The most work, in expected seconds, that rivals of these weights are given from the moment
    at which a tenant asks for ``work`` until the last of it is claimed.

    ``passed_over``: models of theirs may be loaded where its own is not, and it has something
    running, or its model runs somewhere.
    """
    lag = patience if passed_over else 0.0
    return sum(rival * (work / weight + lag) + largest_shard for rival in rivals)


def longest_wait(
    idle_seconds: float,
    *,
    work: float,
    weight: float,
    rivals: Sequence[float],
    largest_shard: float,
    seconds_of_work: float,
    workers: int = 1,
    patience: float = PATIENCE,
    passed_over: bool = False,
) -> float:
    """Seconds until a tenant has what it asked for, when it would take ``idle_seconds`` alone.

    ``seconds_of_work``: how long a worker needs for an expected second. A shard that runs is not
    taken away, so one more of the largest is waited for.
    """
    others = rival_work(
        work,
        weight,
        rivals,
        largest_shard=largest_shard,
        patience=patience,
        passed_over=passed_over,
    )
    return idle_seconds + (others / workers + largest_shard) * seconds_of_work
