"""Loads: who asks for what, when, of which model. Made with a seed, the same on every machine."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain

SLICE_ROWS = 256


@dataclass(frozen=True, slots=True)
class Shard:
    """What one claim takes, once its request has been made."""

    tenant: str
    model: str
    rows: int
    seconds: float
    """On a worker that has the model loaded."""
    work: float
    """What the fair policy counts for it."""


@dataclass(frozen=True, slots=True)
class Request:
    """A job: done when its last shard is."""

    at: float
    shards: tuple[Shard, ...]

    @property
    def tenant(self) -> str:
        return self.shards[0].tenant


@dataclass(frozen=True, slots=True)
class Load:
    """All that is asked of a plant, and the plant."""

    requests: tuple[Request, ...]
    weights: Mapping[str, float] = field(default_factory=dict)
    """1 for tenants that it does not name."""
    workers: int = 1
    capacity: int = 64
    """Rows that a worker wants to hold."""
    slots: int = 1
    """Models that fit into a worker's memory."""
    load_seconds: float = 0.0
    """How long it takes to load one."""
    until: float | None = None
    """When to stop looking; None: at the end of the last shard."""


def batch(
    tenant: str,
    at: float,
    rows: int,
    model: str,
    *,
    slice_seconds: float,
    work: float | None = None,
) -> Request:
    """``slice_seconds`` is how long a slice takes, and each of its rows, side by side; its ``work``
    is its rows unless it is given."""
    shards = [
        Shard(tenant, model, size, slice_seconds, float(size) if work is None else work)
        for size in _sizes(rows)
    ]
    return Request(at, tuple(shards))


def call(tenant: str, at: float, model: str, *, seconds: float, work: float = 1.0) -> Request:
    return Request(at, (Shard(tenant, model, 1, seconds, work),))


def _sizes(rows: int) -> Iterator[int]:
    whole, rest = divmod(rows, SLICE_ROWS)
    return chain([SLICE_ROWS] * whole, [rest] if rest else [])


def flood(
    *,
    seconds: float,
    calls: tuple[float, ...],
    rows: int = 1_000_000,
    small_at: float,
    until: float | None,
    model: str = "fake",
) -> Load:
    """Tenant A with a batch of a million rows, B with one of ten, C with calls: on one worker with
    an engine on which each slice takes ``seconds``."""
    return Load(
        (
            batch("A", 0.0, rows, model, slice_seconds=seconds),
            batch("B", small_at, 10, model, slice_seconds=seconds),
            *(call("C", at, model, seconds=seconds) for at in calls),
        ),
        until=until,
    )


MIXED_TENANTS = 12
MIXED_MODELS = 6
MIXED_SECONDS = 12 * 3_600.0
SLICE_SECONDS = 60.0
CALL_SECONDS = 2.0
LOAD_SECONDS = 30.0


def mixed(*, seed: int = 1, workers: int = 6, share: float = 0.8, slots: int = 1) -> Load:
    """Half a day of batches and calls that come at random: every tenant has a favourite model and
    another, a few ask for much, most for little. ``share`` of the workers' time is asked for."""
    draw = random.Random(seed)
    sizes = [0.3, 0.2, 0.15, 0.1, 0.08, 0.05, 0.04, 0.03, 0.02, 0.015, 0.01, 0.005]
    requests: list[Request] = []
    for number, part in zip(range(MIXED_TENANTS), sizes, strict=True):
        tenant = f"tenant-{number:02}"
        models = [f"model-{number % MIXED_MODELS}", f"model-{(number * 5 + 1) % MIXED_MODELS}"]
        wanted = part * share * workers * MIXED_SECONDS
        at = 0.0
        slices = draw.choice([2, 4, 8])
        pause = MIXED_SECONDS * slices * SLICE_SECONDS / wanted
        while (at := at + draw.expovariate(1 / pause)) < MIXED_SECONDS:
            model = models[draw.random() < 0.2]
            requests.append(
                batch(
                    tenant,
                    at,
                    slices * SLICE_ROWS,
                    model,
                    slice_seconds=SLICE_SECONDS,
                )
            )
        at = 0.0
        while (at := at + draw.expovariate(1 / 600.0)) < MIXED_SECONDS:
            requests.append(call(tenant, at, models[0], seconds=CALL_SECONDS))
    requests.sort(key=lambda request: (request.at, request.tenant))
    return Load(
        tuple(requests), workers=workers, capacity=64, slots=slots, load_seconds=LOAD_SECONDS
    )
