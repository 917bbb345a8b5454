"""A batch of rows of any endpoint through the real upkeep work: validated into slices of several
pools, graphs unfolded, their steps read with what came before, their lines collected, assembled."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from queue import Queue
from typing import Any

import pytest

from shared.db.models import sync_catalog
from shared.doorbell import Ringer
from shared.errors import InvalidRequest
from shared.lifecycle import working
from shared.lifecycle.working import Claim, Held
from shared.models_catalog import ModelEntry
from shared.plans import PlanError
from shared.states import ShardState
from shared.storage.local import LocalStore
from tests.integration.graphs import submit
from tests.integration.protocol import CHAT, Plant, generation_end, slice_end
from tests.live_session import LiveSession
from worker.outputs import response_line, store_lines
from worker.rows import RowInput, read_slice
from worker.steps import read_step
from worker.upkeep.chores import UpkeepChores

PATIENCE_SECONDS = 30.0
VIDEOS = "/v1/videos"
ENGINE_POOLS = ("text", "image", "speech", "video")
ANSWERS: dict[str, dict[str, Any]] = {
    "/v1/audio/speech": {
        "artifact_id": "art_speech",
        "sentences": [{"text": "A fox runs.", "start": 0.0, "end": 1.5}],
    },
    "/v1/images/generations": {"data": [{"artifact_id": "art_picture", "seed": 1}]},
    "/v1/videos/compositions": {"object": "video.file", "artifact_id": "art_video"},
}
MODELS = [
    ModelEntry(id="m", engine="fake", endpoints=[CHAT]),
    ModelEntry(id="i", engine="image"),
    ModelEntry(id="s", engine="speech"),
    ModelEntry(id="c", engine="composer"),
]


def chat(name: str) -> dict[str, Any]:
    return {
        "custom_id": name,
        "method": "POST",
        "url": CHAT,
        "body": {"model": "m", "messages": [{"role": "user", "content": "hello"}]},
    }


def video(name: str, prompt: str = "A fox runs.") -> dict[str, Any]:
    body = {"model": "c", "prompt": prompt}
    return {"custom_id": name, "method": "POST", "url": VIDEOS, "body": body}


class Work:
    """One worker that serves every pool: upkeep by its real code, engines by ``ANSWERS``."""

    def __init__(self, plant: Plant, folder: Path) -> None:
        self.plant = plant
        self.store = LocalStore(folder, "a signing key of some length")
        self.closed: Queue[Held] = Queue()
        plant.session("w1")
        self.chores = UpkeepChores(
            plant.engine,
            self.store,
            LiveSession(),  # type: ignore[arg-type]
            Ringer(""),
            on_closed=self.closed.put,
            max_rows=100,
            max_line_bytes=10_000,
            max_reported=10,
        )
        with plant.engine.begin() as connection:
            sync_catalog(connection, MODELS)

    def batch(self, *rows: dict[str, Any]) -> str:
        job_id = self.plant.batch()
        self.plant.sql("UPDATE jobs SET endpoint = '/v1/*' WHERE id = :id", id=job_id)
        data = b"".join(json.dumps(row).encode() + b"\n" for row in rows)
        key = self.plant.scalar("SELECT storage_key FROM files")
        self.store.put_bytes(key, data, media_type="x")
        return job_id

    def upkeep(self) -> list[str]:
        """Runs what upkeep can run now; the stages."""
        self.plant.dispatch("upkeep")
        claims = self.plant.claim(pools=["upkeep"])
        for claim in claims:
            self.chores.begin(claim, "w1")
        held = {claim.held for claim in claims}
        assert {self.closed.get(timeout=PATIENCE_SECONDS) for _ in claims} == held
        return [claim.stage for claim in claims]

    def engines(self, pools: Sequence[str] = ENGINE_POOLS, *, failing: str = "") -> list[str]:
        """Runs what engines can run now; endpoints of steps and pools of slices. A step fails
        whose body has the word ``failing``."""
        done = []
        for pool in pools:
            self.plant.dispatch(pool)
            for claim in self.plant.claim(pools=[pool]):
                done.append(claim.endpoint if claim.step else pool)
                if claim.step is None:
                    self.run_slice(claim)
                    continue
                row = read_step(self.plant.engine, claim)
                self.finish(claim, bad=bool(failing) and failing.encode() in row.body)
        return done

    def run_slice(self, claim: Claim) -> None:
        rows = read_slice(self.store, claim)
        lines = [response_line(claim.job_id, row, 200, b'{"ok":true}') for row in rows]
        stored = store_lines(self.store, claim, "output.jsonl", lines)
        end = slice_end(claim)
        fields = {name: getattr(end, name) for name in end.__slots__} | {"output": stored}
        with self.plant.engine.begin() as connection:
            assert working.finish_slice(connection, "w1", type(end)(**fields))

    def finish(self, claim: Claim, *, bad: bool = False, **answer: Any) -> None:
        result = json.dumps(ANSWERS.get(claim.endpoint, {}) | answer)
        end = generation_end(claim.held, result=result)
        if bad:
            why = {"error_code": "invalid_request", "error_message": "unspeakable"}
            end = generation_end(claim.held, state=ShardState.FAILED, **why)
        with self.plant.engine.begin() as connection:
            assert working.finish_step(connection, "w1", end)

    def to_the_end(self, job_id: str, *, failing: str = "") -> dict[str, dict[str, Any]]:
        """Works until the job has ended; its lines by ``custom_id``."""
        while self.upkeep() or self.engines(failing=failing):
            pass
        job = self.plant.job(job_id)
        found: dict[str, dict[str, Any]] = {}
        for file_id in (job.output_file_id, job.error_file_id):
            if file_id is None:
                continue
            key = self.plant.scalar("SELECT storage_key FROM files WHERE id = :id", id=file_id)
            for line in b"".join(self.store.read(key)).splitlines():
                row = json.loads(line)
                assert row["custom_id"] not in found
                found[row["custom_id"]] = row
        return found


@pytest.fixture
def work(database_url: str, tmp_path: Path) -> Iterator[Work]:
    plant = Plant(database_url)
    work = Work(plant, tmp_path)
    yield work
    work.chores.close()
    plant.close()


def test_a_batch_of_texts_and_composed_videos(work: Work) -> None:
    job_id = work.batch(chat("a"), video("b"), chat("c"), video("d"))
    assert work.upkeep() == ["validate"]
    slices = {s.pool: s for s in work.plant.shards(job_id) if s.stage == "generate"}
    assert slices["text"].lines == [1, 3]
    assert slices["upkeep"].lines == [2, 4]
    assert work.upkeep() == ["generate"]
    assert slices["upkeep"].id == work.plant.scalar("SELECT DISTINCT slice_id FROM steps")

    lines = work.to_the_end(job_id)
    job = work.plant.job(job_id)
    assert (job.state, job.rows_completed, job.rows_failed) == ("succeeded", 4, 0)
    assert sorted(lines) == ["a", "b", "c", "d"]
    assert lines["a"]["response"]["body"] == {"ok": True}
    for name, line in (("b", 2), ("d", 4)):
        assert lines[name]["response"]["status_code"] == 200
        assert lines[name]["response"]["body"]["artifact_id"] == "art_video"
        assert lines[name]["id"].endswith(f"-{line}")
    assert job.error_file_id is None


def test_a_step_is_read_with_what_the_steps_before_it_made(work: Work) -> None:
    job_id = work.batch(video("a"))
    work.upkeep()
    work.upkeep()
    while work.engines(["text", "image", "speech"]):
        pass
    work.plant.dispatch("video")
    claim = work.plant.claim_one(pools=["video"])
    row = read_step(work.plant.engine, claim)
    body = json.loads(row.body)
    assert (row.id, row.line, row.model) == (f"{job_id}-1-{claim.step}", 1, "c")
    (scene,) = body["scenes"]
    assert scene["picture"] == {"artifact_id": "art_picture"}
    assert scene["narration"] == {"artifact_id": "art_speech"}
    assert scene["captions"] == [{"text": "A fox runs.", "start": 0.0, "end": 1.5}]


def test_what_earlier_steps_made_has_to_fit(work: Work) -> None:
    submit(work.plant, {"one": (), "all": ("one",)})
    (claim,) = work.plant.claim(pools=["text"])
    with pytest.raises(PlanError):
        read_step(work.plant.engine, claim, complete=unfit)
    with pytest.raises(InvalidRequest):
        read_step(work.plant.engine, claim, complete=lambda body, _: {**body, "messages": []})
    row: RowInput = read_step(work.plant.engine, claim)
    assert json.loads(row.body)["messages"][0]["content"] == "one"


def unfit(_body: Any, _results: Any) -> dict[str, Any]:
    raise PlanError("no result of a step")


def test_a_graph_row_that_fails_has_its_error_line_and_the_others_theirs(work: Work) -> None:
    job_id = work.batch(video("a"), video("b", "A hedgehog sleeps."), chat("c"))
    lines = work.to_the_end(job_id, failing="hedgehog")
    job = work.plant.job(job_id)
    assert (job.state, job.rows_completed, job.rows_failed) == ("succeeded", 2, 1)
    assert lines["b"]["response"] is None
    assert lines["b"]["error"]["code"] == "step_failed"
    assert lines["b"]["error"]["message"].startswith("step '")
    assert lines["b"]["error"]["message"].endswith("': unspeakable")
    assert lines["a"]["response"]["body"]["artifact_id"] == "art_video"
    assert work.plant.events(job_id)[-1] == "batch.completed"


def test_models_that_go_after_validation_cost_their_rows_alone(work: Work) -> None:
    job_id = work.batch(video("a"), chat("b"))
    work.upkeep()
    with work.plant.engine.begin() as connection:
        sync_catalog(connection, [model for model in MODELS if model.id != "s"])
    lines = work.to_the_end(job_id)
    assert lines["a"]["error"]["code"] == "model_not_found"
    assert lines["b"]["response"]["status_code"] == 200
    assert work.plant.job(job_id).state == "succeeded"


def test_a_stopped_batch_keeps_the_graph_rows_that_had_ended(work: Work) -> None:
    job_id = work.batch(video("a"), video("b", "A hedgehog sleeps."), chat("c"))
    work.upkeep()
    work.upkeep()
    for _ in range(9):  # the first row's steps alone
        for pool in ("image", "speech", "video"):
            work.plant.dispatch(pool, window=1_000)
            for claim in work.plant.claim(pools=[pool]):
                if claim.step_line == 1:
                    work.finish(claim)
                else:
                    work.plant.release("w1", claim.held, working.ReleaseReason.PREEMPTED)
    assert work.plant.stop(job_id)
    lines = work.to_the_end(job_id)
    job = work.plant.job(job_id)
    assert (job.state, job.rows_completed, job.rows_failed) == ("cancelled", 1, 2)
    assert lines["a"]["response"]["body"]["artifact_id"] == "art_video"
    assert {lines[name]["error"]["code"] for name in "bc"} == {"batch_cancelled"}


def test_an_expired_batch_says_so_on_its_graph_rows(work: Work) -> None:
    job_id = work.batch(video("a"), chat("b"))
    work.upkeep()
    work.upkeep()
    work.plant.sql("UPDATE jobs SET expires_at = clock_timestamp() WHERE id = :id", id=job_id)
    assert work.plant.expire_overdue() == 1
    lines = work.to_the_end(job_id)
    assert {line["error"]["code"] for line in lines.values()} == {"batch_expired"}
    assert work.plant.job(job_id).state == "expired"
