"""A campaign's bundle on a real database and a folder: claimed, made, committed, and found."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from shared import lifecycle
from shared.db.bundles import created_at, made_artifacts, made_steps
from shared.db.session import autocommit
from shared.db.steps import step_of
from shared.lifecycle import working
from shared.lifecycle.working import Claim, GenerationEnd
from shared.states import JobState, ShardState
from shared.storage.local import LocalStore
from tests.integration.protocol import TENANT, WINDOW, Plant
from tests.unit.worker.bundle_case import JOB, MadeCampaign, made_campaign
from worker.upkeep.bundle import make_bundle

BRIEF: dict[str, Any] = {
    "languages": ["en", "de"],
    "outputs": ["copy", "pictures", "voice_over"],
    "audiences": [{"name": "Night owls"}],
}

POOLS = ["text", "image", "speech", "upkeep"]


@pytest.fixture
def plant(database_url: str) -> Iterator[Plant]:
    plant = Plant(database_url)
    plant.session("w1", pools=POOLS)
    yield plant
    plant.close()


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "a store", "a signing key of some length")


def until_the_bundle(plant: Plant, store: LocalStore) -> tuple[MadeCampaign, Claim]:
    """Runs every step of a campaign; returns what was made and the claimed last step."""
    made = made_campaign(store, {"body de 1": " "}, **BRIEF)
    with plant.engine.begin() as connection:
        lifecycle.submit_plan(
            connection, job_id=JOB, tenant_id=TENANT, kind="campaign", endpoint="/v1/campaigns",
            model="writer", body=made.body["brief"], steps=made.plan, window=WINDOW,
        )  # fmt: skip
    results = {step.name: json.dumps(step.result) for step in made.steps}
    while True:
        for pool in POOLS:
            plant.dispatch(pool)
        claims = plant.claim(pools=POOLS[:-1], max_shards=100, max_rows=100)
        if not claims:
            break
        for claim in claims:
            assert claim.step is not None
            end(plant, claim, results[claim.step], artifacts_of(made, claim.step))
    return made, plant.claim_one(pools=["upkeep"])


def artifacts_of(made: MadeCampaign, step: str) -> list[working.NewArtifact]:
    from shared.storage.base import StoredObject

    return [
        working.NewArtifact(
            id=item.id, name=item.name, role=item.role, media_type=item.media_type,
            stored=StoredObject(item.storage_key, item.sha256, item.bytes), step=item.step,
            parent_id=item.parent_id, width=item.width, height=item.height, seconds=item.seconds,
            provenance=item.provenance,
        )
        for item in made.artifacts
        if item.step == step
    ]  # fmt: skip


def end(plant: Plant, claim: Claim, result: str, artifacts: list[working.NewArtifact]) -> None:
    ended = GenerationEnd(
        claim.held, ShardState.SUCCEEDED, hashlib.sha256(result.encode()).hexdigest(),
        result=result, artifacts=artifacts,
    )  # fmt: skip
    with plant.engine.begin() as connection:
        assert working.finish_step(connection, "w1", ended)


def bundle(plant: Plant, store: LocalStore, claim: Claim) -> tuple[dict[str, Any], list[Any]]:
    with autocommit(plant.engine) as connection:
        step = step_of(connection, claim.shard_id)
    return make_bundle(lambda: autocommit(plant.engine), store, claim, step, lambda: False)


def test_a_campaign_ends_with_its_bundle(plant: Plant, store: LocalStore) -> None:
    made, claim = until_the_bundle(plant, store)
    body, artifacts = bundle(plant, store, claim)
    end(plant, claim, json.dumps(body), artifacts)
    assert plant.job(JOB).state == JobState.SUCCEEDED
    rows = plant.sql(
        "SELECT id, role, storage_key, step FROM artifacts WHERE job_id = :job"
        " AND role IN ('manifest', 'bundle', 'contact_sheet') ORDER BY role",
        job=JOB,
    )
    assert [row.role for row in rows] == ["bundle", "contact_sheet", "manifest"]
    assert {row.id for row in rows} == {
        body["zip_id"], body["contact_sheet_id"], body["manifest_id"],
    }  # fmt: skip
    archive = zipfile.ZipFile(io.BytesIO(b"".join(store.read(rows[0].storage_key))))
    assert archive.testzip() is None
    described = json.loads(archive.read("manifest.json"))
    assert {entry["id"] for entry in described["artifacts"]} == {
        artifact.id for artifact in made.artifacts
    }
    (empty,) = (text for text in described["texts"] if text["empty"])
    assert (empty["step"], empty["stand_in"]) == ("body de 1", "Aurora lamp")
    assert all(step["attempts"] == 1 and step["ended_at"] for step in described["steps"])


def test_another_attempt_writes_the_same_bytes_under_keys_of_its_own(
    plant: Plant, store: LocalStore
) -> None:
    _, claim = until_the_bundle(plant, store)
    body, artifacts = bundle(plant, store, claim)
    plant.release("w1", claim.held, working.ReleaseReason.PREEMPTED)
    again = plant.claim_one(pools=["upkeep"])
    second_body, second = bundle(plant, store, again)
    assert body == second_body
    assert [item.stored.sha256 for item in artifacts] == [item.stored.sha256 for item in second]
    assert {item.stored.key for item in artifacts}.isdisjoint(item.stored.key for item in second)


def test_queries_keep_to_one_graph_and_tenant(plant: Plant, store: LocalStore) -> None:
    made, claim = until_the_bundle(plant, store)
    with autocommit(plant.engine) as connection:
        assert [step.name for step in made_steps(connection, JOB, 0)] == [
            step.name for step in made.steps
        ]
        assert made_steps(connection, JOB, 1) == []
        found = made_artifacts(connection, TENANT, JOB, 0, last="bundle")
        assert [item.id for item in found] == [item.id for item in made.artifacts]
        assert [item.storage_key for item in found] == [item.storage_key for item in made.artifacts]
        assert made_artifacts(connection, "ten_other", JOB, 0, last="bundle") == []
        assert made_artifacts(connection, TENANT, JOB, 1, last="bundle") == []
        assert created_at(connection, JOB) == pytest.approx(
            float(plant.scalar("SELECT extract(epoch FROM created_at) FROM jobs"))
        )
    assert claim.step == "bundle"
