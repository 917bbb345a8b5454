"""Graphs of steps in a plant: their shapes, and short names for what happens to them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from shared import lifecycle
from shared.ids import new_campaign_id
from shared.lifecycle import working
from shared.lifecycle.working import Claim, Graph, NewArtifact
from shared.plans.base import BUNDLE, Step
from shared.sharding import Slice
from shared.states import ShardState
from shared.storage.base import StoredObject
from tests.integration.protocol import CHAT, TENANT, WINDOW, Plant, generation_end

CAMPAIGNS = "/v1/campaigns"
POOLS = ("text", "image", "upkeep")

DIAMOND = {"copy": (), "left": ("copy",), "right": ("copy",), "all": ("left", "right")}
"""Name → needs."""
FORK = {"one": (), "two": (), "three": (), "all": ("one", "two", "three")}


def steps(shape: Mapping[str, Sequence[str]], *, right: str = "image") -> list[Step]:
    """Text steps in pool ``text``, ``right`` in another, and the last one in ``upkeep``."""
    made = []
    for name, needs in shape.items():
        last = name == list(shape)[-1]
        pool = "upkeep" if last else right if name == "right" else "text"
        endpoint, model = (BUNDLE, None) if last else (CHAT, "m")
        body = {"model": "m", "messages": [{"role": "user", "content": name}]}
        made.append(Step(name, endpoint, pool, model, body, tuple(needs)))
    return made


def submit(
    plant: Plant,
    shape: Mapping[str, Sequence[str]] = DIAMOND,
    *,
    tenant: str = TENANT,
    window: int = WINDOW,
    expires_in: float | None = None,
    right: str = "image",
) -> str:
    job_id = new_campaign_id()
    with plant.engine.begin() as connection:
        lifecycle.submit_plan(
            connection,
            job_id=job_id,
            tenant_id=tenant,
            kind="campaign",
            endpoint=CAMPAIGNS,
            model="m",
            body={"model": "m", "product": "soap"},
            steps=steps(shape, right=right),
            expires_in_seconds=expires_in,
            window=window,
        )
    return job_id


def dispatch(plant: Plant) -> int:
    return sum(plant.dispatch(pool) for pool in POOLS)


def take(plant: Plant, session: str = "w1", *, pools: Sequence[str] = POOLS) -> dict[str, Claim]:
    """Dispatches and claims all there is: step (or stage) → claim."""
    dispatch(plant)
    return {claim.step or claim.stage: claim for claim in plant.claim(session, pools=pools)}


def finish(plant: Plant, claim: Claim, session: str = "w1", **fields: Any) -> bool:
    """Commits a step; its result says its name."""
    if fields.get("state", ShardState.SUCCEEDED) == ShardState.SUCCEEDED:
        fields = {"result": json.dumps({"made": claim.step})} | fields
    with plant.engine.begin() as connection:
        return working.finish_step(connection, session, generation_end(claim.held, **fields))


def fail(plant: Plant, claim: Claim, session: str = "w1") -> bool:
    """The engine answered with an error."""
    return finish(
        plant,
        claim,
        session,
        state=ShardState.FAILED,
        error_code="invalid_request",
        error_message="too long",
    )


def cut(plant: Plant, claim: Claim, session: str = "w1") -> bool:
    """The worker stopped the step on request."""
    return finish(plant, claim, session, state=ShardState.CANCELLED)


def states(plant: Plant, job_id: str, line: int = 0) -> dict[str, str]:
    """Step → state."""
    rows = plant.sql(
        "SELECT t.name, s.state FROM steps t JOIN shards s ON s.id = t.shard_id"
        " WHERE t.job_id = :job AND t.line = :line ORDER BY s.id",
        job=job_id,
        line=line,
    )
    return {row.name: row.state for row in rows}


def watched(plant: Plant, session: str = "w1") -> dict[int, str | None]:
    """Shard → why it is to stop."""
    with plant.connection() as connection:
        return {item.held.shard_id: item.stop_reason for item in working.watch(connection, session)}


def artifact(claim: Claim, name: str) -> NewArtifact:
    stored = StoredObject(f"a/{claim.shard_id}/e{claim.epoch}/{name}", "c" * 64, 7)
    return NewArtifact(f"art_{claim.step}", name, "image", "image/png", stored, step=claim.step)


# --- batches whose rows are graphs ------------------------------------------------------------


def batch_of_graphs(plant: Plant, *, rows: int, slices: int = 1) -> tuple[str, list[Claim]]:
    """A validated batch whose slices are claimed by ``w1``, to be unfolded."""
    plant.session("w1", pools=POOLS)
    job_id = plant.batch()
    claim = plant.claim_one(pools=["upkeep"])
    cuts = [Slice(n, n * 100, n * 100 + 100, n * rows + 1, rows, "upkeep") for n in range(slices)]
    with plant.engine.begin() as connection:
        assert working.finish_validation(connection, "w1", claim.held, slices=cuts)
    dispatch(plant)
    return job_id, plant.claim(pools=["upkeep"])


def unfold(
    plant: Plant,
    claim: Claim,
    shape: Mapping[str, Sequence[str]] = DIAMOND,
    *,
    session: str = "w1",
    bad_lines: Sequence[int] = (),
) -> bool:
    first = claim.first_line or 1
    graphs = [
        Graph(line, CAMPAIGNS, [], "model_not_found", "no such model")
        if line in bad_lines
        else Graph(line, CAMPAIGNS, steps(shape))
        for line in range(first, first + claim.row_count)
    ]
    with plant.engine.begin() as connection:
        return working.unfold_slice(connection, session, claim.held, graphs)


def run_steps(plant: Plant, session: str = "w1", *, failing: Sequence[tuple[int, str]] = ()) -> int:
    """Runs every step there is until none is left, ``failing`` ones to an error; how many."""
    ran = 0
    while True:
        dispatch(plant)
        claims = [c for c in plant.claim(session, pools=("text", "image")) if c.step]
        bundles = plant.sql(
            "SELECT 1 FROM shards WHERE stage = 'step' AND pool = 'upkeep' AND state = 'ready'"
        )
        if not claims and not bundles:
            return ran
        if bundles:
            claims += plant.claim(session, pools=("upkeep",))
        for claim in claims:
            if (claim.step_line, claim.step) in failing:
                assert fail(plant, claim, session)
            else:
                assert finish(plant, claim, session)
            ran += 1
