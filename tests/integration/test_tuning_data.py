"""The first stage of a fine-tuning job on a real database and a folder: judged by upkeep's code."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import Queue
from typing import Any

import pytest

from shared import lifecycle
from shared.db.models import sync_catalog
from shared.doorbell import Ringer
from shared.errors import StorageUnavailable
from shared.ids import new_file_id, new_id
from shared.lifecycle.working import Claim, Held
from shared.models_catalog import ModelEntry
from shared.states import JobState
from shared.storage.local import LocalStore
from tests.integration.protocol import TENANT, WINDOW, Plant
from tests.live_session import LiveSession
from tests.unit.worker.tuning.data_case import chats, jsonl, labelled, pictures, zipped
from worker.upkeep.chores import UpkeepChores

PATIENCE_SECONDS = 120
MODELS = [
    ModelEntry(
        id="m",
        engine="fake",
        settings={"parameters": 1_000_000, "train_cost_per_million_tokens": 3.0},
    )
]


class WatchedStore(LocalStore):
    """Calls ``before_reading`` whenever it is read."""

    before_reading: Callable[[], None] | None = None

    def read(self, *arguments: Any, **options: Any) -> Iterator[bytes]:
        if self.before_reading is not None:
            self.before_reading()
        return super().read(*arguments, **options)


class Upkeep:
    """The upkeep work of one worker, and tenants that bring it data."""

    def __init__(self, plant: Plant, folder: Path) -> None:
        self.plant = plant
        self.store = WatchedStore(folder / "a store", "a signing key of some length")
        self.closed: Queue[Held] = Queue()
        scratch = folder / "scratch"
        scratch.mkdir()
        plant.session("w1", pools=["upkeep"])
        self.chores = UpkeepChores(
            plant.engine,
            self.store,
            LiveSession(),  # type: ignore[arg-type]
            Ringer(""),
            on_closed=self.closed.put,
            max_rows=1_000,
            max_line_bytes=10_000,
            max_reported=10,
            scratch=scratch,
        )
        with plant.engine.begin() as connection:
            sync_catalog(connection, MODELS)

    def upload(self, data: bytes, name: str) -> str:
        file_id = new_file_id()
        stored = self.store.put_bytes(f"t/{TENANT}/f/{file_id}", data, media_type="x")
        self.plant.sql(
            "INSERT INTO files (id, tenant_id, filename, purpose, bytes, sha256, storage_key)"
            " VALUES (:id, :tenant, :name, 'fine-tune', :bytes, :sha256, :key)",
            id=file_id, tenant=TENANT, name=name, bytes=stored.bytes, sha256=stored.sha256,
            key=stored.key,
        )  # fmt: skip
        return file_id

    def submit(
        self,
        recipe: str,
        data: bytes,
        name: str = "data.jsonl",
        *,
        validation: bytes | None = None,
        **fields: Any,
    ) -> str:
        job_id, training = new_id("ftjob-"), self.upload(data, name)
        checked = None if validation is None else self.upload(validation, "check.jsonl")
        spec = {"model": "m", "training_file": training, "method": {"type": recipe}} | fields
        with self.plant.engine.begin() as connection:
            lifecycle.submit_fine_tune(
                connection,
                job_id=job_id,
                tenant_id=TENANT,
                model="m",
                training_file_id=training,
                validation_file_id=checked,
                spec=json.dumps(spec | ({"validation_file": checked} if checked else {})),
                metadata=None,
                window=WINDOW,
            )
        return job_id

    def attempt(self) -> Claim:
        """Claims the one shard that waits, whatever its delay, and runs it to its end."""
        self.plant.sql("UPDATE shards SET not_before = clock_timestamp() WHERE state = 'ready'")
        claim = self.plant.claim_one("w1", pools=["upkeep"])
        self.chores.begin(claim, "w1")
        assert self.closed.get(timeout=PATIENCE_SECONDS) == claim.held
        return claim

    def card(self, job_id: str) -> str:
        (row,) = self.plant.sql(
            "SELECT * FROM files WHERE filename = 'dataset-card.md' AND purpose = :purpose",
            purpose="fine-tune-results",
        )
        assert row.storage_key.startswith(f"t/{TENANT}/j/{job_id}/")
        return b"".join(self.store.read(row.storage_key)).decode()

    def notes(self, job_id: str) -> list[dict[str, Any]]:
        rows = self.plant.sql(
            "SELECT data FROM events WHERE job_id = :id AND data IS NOT NULL ORDER BY id",
            id=job_id,
        )
        return [row.data for row in rows if "level" in row.data]


@pytest.fixture
def upkeep(database_url: str, tmp_path: Path) -> Iterator[Upkeep]:
    plant = Plant(database_url)
    upkeep = Upkeep(plant, tmp_path)
    yield upkeep
    upkeep.chores.close()
    plant.close()


def test_good_data_open_the_training_with_counts_card_and_warnings(upkeep: Upkeep) -> None:
    rows = labelled(count=30)
    validation = jsonl([rows[0], {"text": "new", "label": "bad"}])
    job_id = upkeep.submit("text_classification", jsonl(rows), validation=validation)
    claim = upkeep.attempt()
    assert (claim.stage, claim.kind) == ("validate", "fine_tune")
    job = upkeep.plant.job(job_id)
    assert (job.state, job.stage) == (JobState.QUEUED, "train")
    found = job.detail["data"]
    assert (found["examples"], found["validation_examples"]) == (30, 2)
    assert (found["labels"], found["held_out"]) == ({"bad": 15, "good": 15}, False)
    assert found["estimate"]["memory_bytes"] == 16_000_000
    assert found["estimate"]["cost"] > 0
    warning = "1 validation example is in the training file too"
    assert found["warnings"] == [warning]
    assert {"message": warning, "level": "warn"} in upkeep.notes(job_id)
    card = upkeep.card(job_id)
    assert "data.jsonl" in card
    assert "check.jsonl" in card
    assert warning in card
    shards = upkeep.plant.shards(job_id)
    assert [(shard.stage, shard.pool) for shard in shards] == [
        ("validate", "upkeep"),
        ("train", "train"),
    ]


def test_bad_data_fail_the_job_with_their_lines(upkeep: Upkeep) -> None:
    data = jsonl(chats()) + b'{\n{"messages": []}\n'
    job_id = upkeep.submit("supervised", data)
    upkeep.attempt()
    job = upkeep.plant.job(job_id)
    assert (job.state, job.error_code) == (JobState.FAILED, "invalid_training_file")
    assert [(error["line"], error["code"], error["param"]) for error in job.errors] == [
        (13, "invalid_json_line", None),
        (14, "empty_content", "messages"),
    ]
    assert [shard.stage for shard in upkeep.plant.shards(job_id)] == ["validate"]


def test_a_zip_of_pictures_is_judged_by_way_of_the_scratch_folder(
    upkeep: Upkeep, tmp_path: Path
) -> None:
    members = pictures(6, "cats/") | pictures(6, "dogs/")
    bad = upkeep.submit("gan", zipped(members | {"dogs/x.pth": b"x", "../a.png": b"x"}), "a.zip")
    upkeep.attempt()
    codes = [(error["code"], error["param"]) for error in upkeep.plant.job(bad).errors]
    assert codes == [("pickle_refused", "dogs/x.pth"), ("unsafe_name", "../a.png")]
    good = upkeep.submit("gan", zipped(members), "a.zip")
    upkeep.attempt()
    job = upkeep.plant.job(good)
    assert job.stage == "train"
    assert job.detail["data"]["labels"] == {"cats": 6, "dogs": 6}
    assert list((tmp_path / "scratch").iterdir()) == []


def test_a_dry_run_ends_with_its_estimate(upkeep: Upkeep) -> None:
    job_id = upkeep.submit("supervised", jsonl(chats(20)), dry_run=True)
    upkeep.attempt()
    job = upkeep.plant.job(job_id)
    assert job.state == JobState.SUCCEEDED
    assert job.result["estimate"]["examples"] == 18
    assert job.result["estimate"]["estimate"]["steps"] > 0
    assert "## Estimate" in upkeep.card(job_id)
    assert [shard.stage for shard in upkeep.plant.shards(job_id)] == ["validate"]


def test_a_file_that_is_gone_fails_the_job(upkeep: Upkeep) -> None:
    job_id = upkeep.submit("supervised", jsonl(chats()), validation=jsonl(chats(2)))
    upkeep.plant.sql(
        "UPDATE files SET deleted_at = clock_timestamp() WHERE filename = 'check.jsonl'"
    )
    upkeep.attempt()
    job = upkeep.plant.job(job_id)
    assert (job.state, job.error_code, job.error_param) == (
        JobState.FAILED,
        "not_found",
        "validation_file",
    )


def test_an_accepted_job_outlives_the_time_of_its_files(upkeep: Upkeep) -> None:
    job_id = upkeep.submit("supervised", jsonl(chats()), validation=jsonl(chats(2)))
    upkeep.plant.sql("UPDATE files SET expires_at = clock_timestamp()")
    upkeep.attempt()
    assert [shard.stage for shard in upkeep.plant.shards(job_id)] == ["validate", "train"]


def test_a_store_that_is_away_is_waited_for(upkeep: Upkeep) -> None:
    job_id = upkeep.submit("supervised", jsonl(chats()))

    def away() -> None:
        raise StorageUnavailable("away")

    upkeep.store.before_reading = away
    for _ in range(4):
        upkeep.attempt()
    (shard,) = upkeep.plant.shards(job_id)
    assert (shard.state, shard.error_n, shard.preempt_n) == ("ready", 0, 4)
    upkeep.store.before_reading = None
    upkeep.attempt()
    assert upkeep.plant.job(job_id).stage == "train"


def test_an_interrupted_look_is_begun_again(upkeep: Upkeep) -> None:
    job_id = upkeep.submit("supervised", jsonl(chats()))
    upkeep.store.before_reading = upkeep.chores.abandon_all
    upkeep.attempt()
    (shard,) = upkeep.plant.shards(job_id)
    assert (shard.state, shard.error_n, shard.preempt_n) == ("ready", 0, 1)
    upkeep.store.before_reading = None
    upkeep.attempt()
    assert upkeep.plant.job(job_id).stage == "train"
