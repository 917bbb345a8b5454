"""The fence: a write about a shard counts only from the attempt that holds it.

``epoch`` grows with every claim and never goes back, so a worker that was declared dead, and whose
shard was claimed again, matches no row: it is a zombie, and its write is refused and counted.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy import Connection, text

from shared.states import ShardState, guard

FENCE = f"s.epoch = :epoch AND s.session_id = :me AND {guard('s.state', ShardState.SUCCEEDED)}"
"""For one shard ``s``; parameters ``epoch`` and ``me``."""

FENCE_MANY = (
    f"s.epoch = d.epoch AND s.session_id = :me AND {guard('s.state', ShardState.SUCCEEDED)}"
)
"""For shards ``s`` joined with a list ``d`` of (id, epoch)."""


@dataclass(frozen=True, slots=True, order=True)
class Held:
    """A claim in short: the shard and the epoch under which it is held."""

    shard_id: int
    epoch: int


def count_zombies(connection: Connection, held: Collection[Held]) -> None:
    """Notes on each shard that the fence refused a late write."""
    if held:
        connection.execute(
            text("UPDATE shards SET fenced_n = fenced_n + 1 WHERE id = ANY(:ids)"),
            {"ids": sorted(item.shard_id for item in held)},
        )
