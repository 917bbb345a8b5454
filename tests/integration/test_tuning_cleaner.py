"""What stays of trainings, and when their models' files go."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from shared.db.models import delete_model
from shared.errors import NotFound
from shared.lifecycle.working import ReleaseReason
from shared.storage.local import LocalStore
from tests.integration.protocol import TENANT
from tests.integration.tuning_case import TuningPlant, name_of, training_end
from worker.upkeep.cleaner import Cleaner


@pytest.fixture
def plant(database_url: str) -> Iterator[TuningPlant]:
    plant = TuningPlant(database_url)
    yield plant
    plant.close()


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path, "a signing key of some length")


def put(store: LocalStore, *keys: str) -> None:
    for key in keys:
        store.put_bytes(key, b"x", media_type="x")


def there(store: LocalStore, key: str) -> bool:
    try:
        return store.size(key) > 0
    except NotFound:
        return False


def age(plant: TuningPlant) -> None:
    """Everything has ended, or was deleted, two hours ago."""
    plant.sql("UPDATE jobs SET ended_at = ended_at - interval '2 hours'")
    plant.sql("UPDATE models SET deleted_at = deleted_at - interval '2 hours'")


def test_states_and_vain_attempts_go_and_models_and_results_stay(
    plant: TuningPlant, store: LocalStore
) -> None:
    job_id, claim = plant.training()
    plant.checkpoint(claim, 10)
    end = training_end(claim)
    checkpoint = f"t/{TENANT}/j/{job_id}/c/{claim.epoch}-10/"
    kept = [
        f"{checkpoint}model/adapter.safetensors",
        end.model.files[0].key,
        end.files[0].stored.key,
    ]
    gone = [
        f"{checkpoint}state.safetensors",
        f"{checkpoint}manifest.json",
        f"t/{TENANT}/j/{job_id}/c/{claim.epoch}-15/state.safetensors",  # never committed
        f"t/{TENANT}/m/{job_id}/e7/adapter.safetensors",
        f"t/{TENANT}/j/{job_id}/r/e7/report.md",
    ]
    put(store, *kept, *gone)
    assert plant.finish_training(claim, end)
    Cleaner(plant.engine, store).run()
    assert all(there(store, key) for key in [*kept, *gone])  # zombies have their hour
    age(plant)
    Cleaner(plant.engine, store).run()
    assert [there(store, key) for key in kept] == [True] * len(kept)
    assert [there(store, key) for key in gone] == [False] * len(gone)
    assert plant.job(job_id).cleaned_at is not None


def test_a_deleted_model_takes_its_files_along_after_an_hour(
    plant: TuningPlant, store: LocalStore
) -> None:
    _, claim = plant.training()
    end = training_end(claim)
    assert plant.finish_training(claim, end)
    put(store, end.model.files[0].key)
    with plant.engine.begin() as connection:
        assert delete_model(connection, TENANT, name_of(claim))
        assert not delete_model(connection, TENANT, name_of(claim))
    Cleaner(plant.engine, store).run()
    assert there(store, end.model.files[0].key)
    age(plant)
    Cleaner(plant.engine, store).run()
    assert not there(store, end.model.files[0].key)
    assert plant.scalar("SELECT count(*) FROM models WHERE cleaned_at IS NOT NULL") == 1


def test_a_deleted_checkpoint_stays_while_its_training_may_go_on_from_it(
    plant: TuningPlant, store: LocalStore
) -> None:
    job_id, claim = plant.training()
    plant.checkpoint(claim, 10)
    key = f"t/{TENANT}/j/{job_id}/c/{claim.epoch}-10/model/adapter.safetensors"
    put(store, key)
    with plant.engine.begin() as connection:
        delete_model(connection, TENANT, name_of(claim, 10))
    age(plant)
    Cleaner(plant.engine, store).run()
    assert there(store, key)
    plant.stop(job_id)
    plant.release("trainer", claim.held, ReleaseReason.PREEMPTED)
    age(plant)
    Cleaner(plant.engine, store).run()
    assert not there(store, key)


def test_a_validation_file_stays_as_long_as_a_job_may_read_it(
    plant: TuningPlant, store: LocalStore
) -> None:
    job_id = plant.fine_tune(validation=True)
    plant.sql("UPDATE files SET expires_at = clock_timestamp()")
    Cleaner(plant.engine, store).run()
    assert plant.scalar("SELECT count(*) FROM files WHERE deleted_at IS NULL") == 2
    plant.stop(job_id)
    Cleaner(plant.engine, store).run()
    assert plant.scalar("SELECT count(*) FROM files WHERE deleted_at IS NULL") == 0
