"""What open jobs read stays, and what nobody speaks for goes."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from sqlalchemy import text

from shared.db.models import needed_by
from shared.db.streams import forget_deltas
from shared.lifecycle import working
from shared.sharding import Slice
from tests.integration.protocol import TENANT
from tests.integration.tuning_case import TuningPlant, name_of, training_end
from tests.integration.upkeep_case import Hall, hall_fixture, row
from worker.rows import read_slice

__all__ = ["hall_fixture"]


@pytest.fixture
def plant(database_url: str) -> Iterator[TuningPlant]:
    plant = TuningPlant(database_url)
    yield plant
    plant.close()


def model_of(plant: TuningPlant) -> str:
    """A tuned model of the tenant's."""
    _, claim = plant.training()
    assert plant.finish_training(claim, training_end(claim))
    return name_of(claim)


def test_a_batch_keeps_the_models_that_its_rows_name(plant: TuningPlant) -> None:
    model_id = model_of(plant)
    batch_id = plant.batch()
    held = plant.claim_one("up", pools=["upkeep"]).held
    with plant.engine.begin() as connection:
        assert needed_by(connection, TENANT, model_id) is None
        assert working.finish_validation(
            connection, "up", held, slices=[Slice(0, 0, 10, 1, 2, "text")], needed=[model_id]
        )
        assert needed_by(connection, TENANT, model_id) == batch_id
    assert plant.stop(batch_id)
    plant.sql("UPDATE jobs SET state = 'cancelled' WHERE id = :id", id=batch_id)
    with plant.engine.begin() as connection:
        assert needed_by(connection, TENANT, model_id) is None


def test_validation_finds_the_tuned_models_that_rows_name(hall: Hall) -> None:
    with hall.begin() as connection:
        connection.execute(
            text("INSERT INTO models (id, tenant_id, pool, engine, source, endpoints, job_id)"
                 " SELECT 'ft:mine', id, 'text', 'fake', '', ARRAY['/v1/completions'], 'ftjob-1'"
                 " FROM tenants")
        )  # fmt: skip
    batch_id = hall.batch(row(1) + row(2, model="ft:mine"))
    assert hall.upkeep()
    with hall.begin() as connection:
        kept = connection.execute(
            text("SELECT model_id FROM job_models WHERE job_id = :id"), {"id": batch_id}
        )
        assert list(kept.scalars()) == ["ft:mine"]
    assert hall.delete("/v1/models/ft:mine").status_code == 409
    names = [json.loads(line.body)["model"] for claim in hall.claim("text", 9)
             for line in read_slice(hall.services.store, claim)]  # fmt: skip
    assert sorted(names) == ["ft:mine", "models/writer:1"]


def test_what_was_said_goes_with_its_speaker(plant: TuningPlant) -> None:
    open_job, ended = plant.generation(), plant.generation()
    plant.sql("UPDATE jobs SET state = 'succeeded' WHERE id = :id", id=ended)
    for job_id in (open_job, ended, "job_that_is_gone"):
        plant.sql(
            "INSERT INTO deltas (tenant_id, job_id, epoch, seq, pieces)"
            " SELECT :tenant, :job, 1, n, '[]' FROM generate_series(0, 2) n",
            tenant=TENANT,
            job=job_id,
        )
    with plant.connection() as connection:
        assert forget_deltas(connection) == 6
    assert plant.sql("SELECT DISTINCT job_id FROM deltas") == [(open_job,)]
