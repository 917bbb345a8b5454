"""What the cleaner removes, what it keeps, and what does not stop it."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

import pytest

from shared.errors import NotFound, StorageUnavailable
from shared.lifecycle.working import ReleaseReason
from shared.storage.local import LocalStore
from tests.integration.protocol import TENANT, Plant
from worker.outputs import assembly_prefix, slices_prefix
from worker.upkeep.cleaner import Cleaner


class PickyStore(LocalStore):
    """Refuses to delete below some prefixes."""

    refused: tuple[str, ...] = ()

    def delete_prefix(self, prefix: str, *, keep: Collection[str] = ()) -> int:
        if prefix.startswith(self.refused):
            raise StorageUnavailable("not this one")
        return super().delete_prefix(prefix, keep=keep)

    def delete(self, key: str) -> None:
        if key.startswith(self.refused):
            raise StorageUnavailable("not this one")
        super().delete(key)


@pytest.fixture
def plant(database_url: str) -> Iterator[Plant]:
    plant = Plant(database_url)
    plant.session("w1", pools=["text", "upkeep"])
    yield plant
    plant.close()


@pytest.fixture
def store(tmp_path: Path) -> PickyStore:
    store = PickyStore(tmp_path, "a signing key of some length")
    store.refused = ("none",)
    return store


def there(store: LocalStore, key: str) -> bool:
    try:
        return store.size(key) > 0
    except NotFound:
        return False


def ended_batch(plant: Plant, store: LocalStore, *, vain: int) -> tuple[str, list[str], str]:
    """A batch that was assembled at the attempt after ``vain`` ones, an hour ago; its
    intermediate keys and the one that its output file has."""
    job_id = plant.generating(1)
    (claim,) = plant.claim(pools=["text"])
    assert plant.finish_slice("w1", claim)
    keys = [slices_prefix(TENANT, job_id) + "0/e1/output.jsonl"]
    for epoch in range(1, vain + 2):
        last = plant.claim_one(pools=["upkeep"])
        keys.append(assembly_prefix(TENANT, job_id, epoch) + "output.jsonl")
        if epoch <= vain:
            plant.release("w1", last.held, ReleaseReason.PREEMPTED)
    for key in keys:
        store.put_bytes(key, b"{}", media_type="x")
    assert plant.finish_assembly("w1", last.held)
    plant.sql("UPDATE jobs SET ended_at = ended_at - interval '2 hours' WHERE id = :id", id=job_id)
    return job_id, keys[:-1], keys[-1]


def test_slices_and_vain_assemblies_go_and_the_files_stay(plant: Plant, store: PickyStore) -> None:
    job_id, vain, kept = ended_batch(plant, store, vain=2)
    Cleaner(plant.engine, store).run()
    assert [there(store, key) for key in vain] == [False] * 3
    assert there(store, kept)
    assert plant.job(job_id).cleaned_at is not None


def test_an_object_that_cannot_be_deleted_holds_nothing_else_up(
    plant: Plant, store: PickyStore
) -> None:
    first, first_keys, _ = ended_batch(plant, store, vain=0)
    second, second_keys, _ = ended_batch(plant, store, vain=0)
    store.refused = (slices_prefix(TENANT, first),)
    cleaner = Cleaner(plant.engine, store)
    cleaner.run()
    assert plant.job(first).cleaned_at is None
    assert plant.job(second).cleaned_at is not None
    assert (there(store, first_keys[0]), there(store, second_keys[0])) == (True, False)
    store.refused = ("none",)
    cleaner.run()
    assert plant.job(first).cleaned_at is not None


def test_an_expired_file_is_known_for_as_long_as_the_store_has_it(
    plant: Plant, store: PickyStore
) -> None:
    key = f"t/{TENANT}/f/file-1"
    store.put_bytes(key, b"{}", media_type="x")
    plant.sql(
        "INSERT INTO files (id, tenant_id, filename, purpose, bytes, sha256, storage_key,"
        " expires_at) VALUES ('file-1', :tenant, 'a', 'batch', 2, 'sha', :key,"
        " clock_timestamp() - interval '1 s')",
        tenant=TENANT,
        key=key,
    )
    store.refused = (key,)
    cleaner = Cleaner(plant.engine, store)
    cleaner.run()
    assert plant.scalar("SELECT deleted_at IS NULL FROM files")
    store.refused = ("none",)
    cleaner.run()
    assert not there(store, key)
    assert not plant.scalar("SELECT deleted_at IS NULL FROM files")
