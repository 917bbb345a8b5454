"""What usage costs: prices of the catalog, also of models that were tuned from it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from shared.db.models import sync_catalog
from shared.doorbell import Ringer
from shared.lifecycle import working
from shared.lifecycle.usage import add_usage
from shared.lifecycle.working import GenerationEnd, NewArtifact, UsageLine
from shared.models_catalog import ModelEntry, Price
from shared.states import ShardState
from shared.storage.base import StoredObject
from tests.integration.protocol import TENANT, Plant
from worker.upkeep.passes import Passes

PRICE = Price(
    input_per_million=2.0,
    output_per_million=3.0,
    per_image=0.5,
    per_second=0.25,
    training_per_million=7.0,
    training_per_second=0.001,
)


@pytest.fixture
def plant(database_url: str) -> Any:
    made = Plant(database_url)
    with made.engine.begin() as connection:
        entry = ModelEntry(id="base", engine="fake", price=PRICE)
        sync_catalog(connection, [entry, ModelEntry(id="m", engine="fake")])
    # Its description has what Postgres can't look into.
    for model, base in (("tuned", "base"), ("again", "tuned"), ("orphan", "gone")):
        made.sql(
            "INSERT INTO models (id, tenant_id, pool, engine, source, endpoints, base_model,"
            " detail) VALUES (:id, :tenant, 'text', 'fake', '', '{}', :base,"
            " CAST(:detail AS json))",
            id=model,
            tenant=TENANT,
            base=base,
            detail='{"labels": ["\\u0000"], "price": {"input_per_million": 99}}',
        )
    made.session()
    yield made
    made.close()


@pytest.mark.parametrize(
    ("model", "cost"),
    [("base", 350), ("tuned", 350), ("again", 350), ("m", 0), ("orphan", 0), ("unknown", 0)],
)
def test_a_tuned_model_costs_what_it_was_tuned_from(plant: Plant, model: str, cost: int) -> None:
    plant.generation()
    claim = plant.claim_one()
    with plant.engine.begin() as connection:
        add_usage(connection, claim.held, UsageLine("/v1/completions", model, 1, 100, 50))
    assert plant.scalar("SELECT cost FROM usage") == cost


def test_trainings_pictures_and_sounds_have_prices_of_their_own(plant: Plant) -> None:
    plant.generation()
    claim = plant.claim_one()
    lines = [
        UsageLine("/v1/fine_tuning/jobs", "tuned", 1, 100, 0, compute_seconds=2.0),
        UsageLine("/v1/images/generations", "base", 1, 0, 0, images=3),
        UsageLine("/v1/audio/speech", "base", 1, 0, 0, media_seconds=1.5),
    ]
    with plant.engine.begin() as connection:
        for line in lines:
            add_usage(connection, claim.held, line)
    rows = plant.sql("SELECT endpoint, cost FROM usage ORDER BY endpoint")
    assert [row.cost for row in rows] == [375_000, 100 * 7 + 2_000, 1_500_000]


def test_what_a_job_made_is_counted_by_its_files(plant: Plant) -> None:
    plant.generation()
    claim = plant.claim_one()
    plant.sql("UPDATE jobs SET model = 'again'")
    stored = StoredObject("k", 1, "0" * 64)
    files = [
        NewArtifact("art_1", "0.png", "image", "image/png", stored),
        NewArtifact("art_2", "0.thumbnail.webp", "thumbnail", "image/webp", stored),
        NewArtifact("art_3", "speech.mp3", "audio", "audio/mpeg", stored, seconds=2.5),
    ]
    end = GenerationEnd(claim.held, ShardState.SUCCEEDED, "0" * 64, result="{}", artifacts=files)
    with plant.engine.begin() as connection:
        working.finish_generations(connection, "w1", [end])
    (row,) = plant.sql("SELECT * FROM usage")
    assert (row.images, row.media_seconds) == (1, 2.5)
    assert row.cost == 500_000 + 625_000
    ran = plant.scalar("SELECT extract(epoch FROM ended_at - started_at) FROM shards")
    assert row.compute_seconds == pytest.approx(float(ran), abs=0.5)


def test_upkeep_adds_usage_to_its_days(plant: Plant) -> None:
    plant.generation()
    claim = plant.claim_one()
    plant.finish("w1", claim.held)
    nobody: Any = SimpleNamespace(run=list)
    Passes(plant.engine, Ringer(""), nobody, nobody, window=32, pause_seconds=1).run_once()
    assert plant.scalar("SELECT bool_and(counted) FROM usage")
    assert plant.scalar("SELECT sum(rows) FROM usage_days") == 1
