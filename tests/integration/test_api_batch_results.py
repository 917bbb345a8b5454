"""Batches beyond OpenAI's: results while they run, rows again, dry runs, honest ends."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import openai
import pytest
from openai.types.uploads import UploadPart
from sqlalchemy import text
from werkzeug.test import TestResponse

from api import batch_objects
from shared import lifecycle
from shared.db.session import autocommit
from shared.lifecycle import working
from shared.lifecycle.working import ReleaseReason
from shared.states import StopReason
from tests.integration.api_case import MODEL
from tests.integration.upkeep_case import Hall, hall_fixture, row
from worker.upkeep.chore import Chore
from worker.upkeep.cleaner import Cleaner

__all__ = ["hall_fixture"]

ROWS = 600
"""Three slices of at most 256."""
LINES = b"".join(row(n) for n in range(ROWS))
FAILING = frozenset({"row-3", "row-300", "row-599"})


def results(hall: Hall, batch_id: str, **query: Any) -> TestResponse:
    reply = hall.client.get(f"/v1/batches/{batch_id}/results", query_string=query, headers=hall.key)
    assert reply.status_code == 200, reply.json
    assert reply.content_type == "application/x-ndjson"
    return reply


class Follower:
    """One who goes on with the cursor."""

    def __init__(self, hall: Hall, batch_id: str, **query: Any) -> None:
        self._hall = hall
        self._batch_id = batch_id
        self._query = query
        self.seen: list[str] = []
        self.incomplete = True

    def read(self) -> int:
        """Reads what is there; returns how many lines."""
        before = len(self.seen)
        while True:
            reply = results(self._hall, self._batch_id, **self._query)
            lines = reply.data.splitlines()
            self.seen += [json.loads(line)["custom_id"] for line in lines]
            assert reply.headers["X-Last-Line"] == str(len(self.seen))
            self._query["after"] = reply.headers["X-Next-After"]
            self.incomplete = reply.headers["X-Incomplete"] == "true"
            if not lines:
                return len(self.seen) - before


def test_lines_come_as_slices_end_and_each_once(hall: Hall) -> None:
    batch_id = hall.batch(LINES)
    everything = Follower(hall, batch_id, limit=100)
    failed = Follower(hall, batch_id, status="failed")
    good = Follower(hall, batch_id, status="succeeded", limit=10_000)
    followers = (everything, failed, good)
    assert [one.read() for one in followers] == [0, 0, 0]
    hall.upkeep()
    first, second, third = hall.claim("text", 10)
    hall.end_slice(second, FAILING)
    assert [one.read() for one in followers] == [0, 0, 0], "the first comes first"
    with hall.begin() as connection:
        working.release(connection, hall.me, first.held, ReleaseReason.PREEMPTED)
    (again,) = hall.claim("text")
    assert again.epoch == 2
    hall.end_slice(again, FAILING)
    assert [one.read() for one in followers] == [512, 2, 510]
    hall.end_slice(third, FAILING)
    hall.upkeep()
    assert hall.look(batch_id)["status"] == "completed"
    assert [one.read() for one in followers] == [88, 1, 87]
    assert not any(one.incomplete for one in followers)
    assert sorted(everything.seen) == sorted(f"row-{n}" for n in range(ROWS))
    assert set(failed.seen) == FAILING
    late = Follower(hall, batch_id, limit=7)
    late.read()
    assert late.seen == everything.seen, "the same order from the final files"


def test_the_final_files_are_read_once_the_slices_are_gone(hall: Hall) -> None:
    batch_id = hall.ended_batch(LINES, FAILING)
    with hall.begin() as connection:
        connection.execute(text("UPDATE jobs SET ended_at = ended_at - interval '2 hours'"))
    Cleaner(hall.engine, hall.services.store).run()
    follower = Follower(hall, batch_id, limit=100)
    assert follower.read() == ROWS
    batch = hall.look(batch_id)
    assert hall.delete(f"/v1/files/{batch['error_file_id']}").status_code == 200
    assert results(hall, batch_id, status="succeeded").status_code == 200
    gone = hall.get(f"/v1/batches/{batch_id}/results?status=failed")
    assert (gone.status_code, gone.json["error"]["code"]) == (404, "not_found")


def test_rows_that_a_cancel_kept_from_running_come_at_the_end(hall: Hall) -> None:
    batch_id = hall.batch(LINES)
    hall.upkeep()
    (first,) = hall.claim("text")
    follower = Follower(hall, batch_id)
    hall.post(f"/v1/batches/{batch_id}/cancel")
    hall.end_slice(first, FAILING)
    assert follower.read() == 256
    hall.upkeep()
    assert hall.look(batch_id)["status"] == "cancelled"
    assert follower.read() == ROWS - 256
    assert len(set(follower.seen)) == ROWS
    assert not follower.incomplete


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("limit=0", "limit"),
        ("limit=10001", "limit"),
        ("status=open", "status"),
        ("after=a0.5.0", "after"),
        ("after=s0.0.0", "after"),
        ("after=a0.99999.0", "after"),
        ("after=%00", "after"),
    ],
)
def test_a_bad_question_names_the_parameter(hall: Hall, query: str, param: str) -> None:
    batch_id = hall.ended_batch(row(1) + row(2))
    reply = hall.get(f"/v1/batches/{batch_id}/results?{query}")
    assert (reply.status_code, reply.json["error"]["param"]) == (400, param)


def test_another_tenant_finds_nothing(hall: Hall) -> None:
    batch_id = hall.ended_batch(row(1), frozenset({"row-1"}))
    stranger = hall.new_tenant()
    assert hall.get(f"/v1/batches/{batch_id}/results", stranger).status_code == 404
    assert hall.post(f"/v1/batches/{batch_id}/retry", {}, stranger).status_code == 404
    assert hall.get("/v1/batches/%00/results").status_code == 404


# --- rows again ----------------------------------------------------------------------------------


def retry(hall: Hall, batch_id: str, **body: Any) -> TestResponse:
    return hall.post(f"/v1/batches/{batch_id}/retry", body)


def test_failed_rows_run_again_in_a_batch_of_their_own(hall: Hall) -> None:
    batch_id = hall.ended_batch(b"\n".join([b"", LINES]), FAILING)
    first = hall.look(batch_id)
    reply = retry(hall, batch_id, only="failed", completion_window="2h", priority=1)
    assert reply.status_code == 200, reply.json
    batch_objects.Batch.model_validate(reply.json)
    again = reply.json
    assert (again["retry_of"], again["metadata"]) == (batch_id, {"retry_of": batch_id})
    assert (again["completion_window"], again["priority"]) == ("2h", 1)
    assert again["input_file_id"] == first["input_file_id"], "its own is not made yet"
    for file_id in (first["input_file_id"], first["error_file_id"]):
        assert hall.delete(f"/v1/files/{file_id}").status_code == 409, "both are needed"
    hall.upkeep()
    again = hall.look(again["id"])
    assert again["input_file_id"] != first["input_file_id"]
    assert hall.input_of(again["id"]) == row(3) + row(300) + row(599)
    for claim in hall.claim("text", 10):
        hall.end_slice(claim)
    hall.upkeep()
    again = hall.look(again["id"])
    assert (again["status"], again["succeeded"]) == ("completed", 3)
    assert retry(hall, again["id"]).status_code == 409, "no row of it failed"


def test_a_retry_that_is_killed_makes_its_input_once(hall: Hall) -> None:
    batch_id = hall.ended_batch(LINES, FAILING)
    new_id = retry(hall, batch_id).json["id"]
    (claim,) = hall.claim("upkeep")
    hall.chores._batches._make_input(Chore(claim, hall.me), json.loads(claim.spec)["retry"])
    made = hall.look(new_id)["input_file_id"]
    with hall.begin() as connection:
        working.release(connection, hall.me, claim.held, ReleaseReason.PREEMPTED)
    hall.upkeep()
    batch = hall.look(new_id)
    assert (batch["status"], batch["input_file_id"]) == ("in_progress", made)
    with autocommit(hall.engine) as connection:
        inputs = "SELECT count(*) FROM files WHERE filename LIKE '%_input.jsonl'"
        assert connection.execute(text(inputs)).scalar() == 1


def test_rows_that_never_ran_are_told_from_those_that_failed(hall: Hall) -> None:
    batch_id = hall.batch(LINES)
    hall.upkeep()
    (first,) = hall.claim("text")
    assert retry(hall, batch_id).status_code == 409, "it has not ended"
    with hall.begin() as connection:
        tenant = connection.execute(text("SELECT tenant_id FROM jobs")).scalar_one()
        lifecycle.request_stop(
            connection, tenant_id=tenant, job_id=batch_id, reason=StopReason.EXPIRED
        )
    hall.end_slice(first, FAILING)
    hall.upkeep()
    assert hall.look(batch_id)["status"] == "expired"
    assert retry(hall, batch_id, only="cancelled").status_code == 409
    counts = {}
    for only in ("failed", "expired", "all"):
        new_id = retry(hall, batch_id, only=only).json["id"]
        hall.upkeep()
        counts[only] = hall.look(new_id)["request_counts"]["total"]
    assert counts == {"failed": 1, "expired": ROWS - 256, "all": ROWS - 255}


@pytest.mark.parametrize("which", ["input_file_id", "error_file_id"])
def test_without_its_files_nothing_can_run_again(hall: Hall, which: str) -> None:
    batch_id = hall.ended_batch(row(1), frozenset({"row-1"}))
    assert hall.delete(f"/v1/files/{hall.look(batch_id)[which]}").status_code == 200
    refused = retry(hall, batch_id)
    assert (refused.status_code, refused.headers["x-should-retry"]) == (409, "false")
    assert "deleted" in refused.json["error"]["message"]


def test_a_retry_that_is_asked_twice_with_one_key_is_one(hall: Hall) -> None:
    batch_id = hall.ended_batch(row(1), frozenset({"row-1"}))
    once = {"Idempotency-Key": "again"}
    path = f"/v1/batches/{batch_id}/retry"
    first, second = (hall.post(path, {"only": "all"}, once).json["id"] for _ in range(2))
    assert first == second
    wrong = hall.post(path, {"only": "all", "colour": 1})
    assert (wrong.status_code, wrong.json["error"]["param"]) == (400, "colour")


def test_the_cleaner_keeps_the_input_that_a_retry_made(hall: Hall) -> None:
    batch_id = hall.ended_batch(row(1) + row(2), frozenset({"row-1"}))
    new_id = retry(hall, batch_id).json["id"]
    hall.upkeep()
    hall.end_slice(hall.claim("text")[0])
    hall.upkeep()
    with hall.begin() as connection:
        tenant = connection.execute(text("SELECT tenant_id FROM jobs LIMIT 1")).scalar_one()
        connection.execute(text("UPDATE jobs SET ended_at = ended_at - interval '2 hours'"))
    vain = f"t/{tenant}/j/{new_id}/input/e9/input.jsonl"
    hall.services.store.put_bytes(vain, b"late", media_type="x")
    Cleaner(hall.engine, hall.services.store).run()
    assert hall.input_of(new_id) == row(1)
    folder = hall.settings.storage_dir
    assert folder is not None
    assert not (folder / vain).exists()


# --- dry runs, terms, ends -----------------------------------------------------------------------


def test_a_dry_run_counts_and_runs_nothing(hall: Hall) -> None:
    batch_id = hall.batch(LINES, dry_run=True)
    hall.upkeep()
    batch = hall.look(batch_id)
    batch_objects.Batch.model_validate(batch)
    assert (batch["status"], batch["dry_run"], batch["model"]) == ("completed", True, MODEL)
    assert (batch["output_file_id"], batch["error_file_id"]) == (None, None)
    estimate = batch["estimate"]
    assert (estimate["rows"], estimate["slices"]) == (ROWS, 3)
    assert estimate["max_output_tokens"] == 7 * ROWS
    assert estimate["input_tokens"] > 0
    assert estimate["calls"] == [{"endpoint": "/v1/completions", "model": MODEL, "rows": ROWS}]
    assert hall.claim("text") == []
    assert results(hall, batch_id).headers["X-Incomplete"] == "false"
    bad_id = hall.batch(b"{}\n", dry_run=True)
    hall.upkeep()
    assert (hall.look(bad_id)["status"], hall.look(bad_id)["estimate"]) == ("failed", None)


def test_the_deadline_and_the_priority_are_the_callers(hall: Hall) -> None:
    file_id = hall.upload(LINES).json["id"]
    body = {"input_file_id": file_id, "endpoint": "/v1/completions", "completion_window": "1h"}
    for said, seconds in (("90s", 90), ("5h", 3_600)):
        batch = hall.post("/v1/batches", body | {"priority": 2}, {"Cancel-After": said}).json
        assert batch["expires_at"] == batch["created_at"] + seconds
        assert batch["priority"] == 2
    for wrong in ("soon", "0s", "31d"):
        refused = hall.post("/v1/batches", body, {"Cancel-After": wrong})
        assert (refused.status_code, refused.json["error"]["param"]) == (400, "Cancel-After")


def test_a_batch_without_a_success_says_why(hall: Hall) -> None:
    batch = hall.look(hall.ended_batch(row(1) + row(2), frozenset({"row-1", "row-2"})))
    batch_objects.Batch.model_validate(batch)
    assert (batch["status"], batch["succeeded"], batch["output_file_id"]) == ("completed", 0, None)
    assert batch["commonest_error"] == {"code": "no", "count": 2, "message": "no    good"}
    good = hall.look(hall.ended_batch(row(1)))
    assert (good["commonest_error"], good["error_file_id"], good["model"]) == (None, None, MODEL)


@pytest.mark.parametrize(
    ("metadata", "param"),
    [
        ({f"k{n}": "v" for n in range(17)}, "metadata"),
        ({"k" * 65: "v"}, None),
        ({"k": "v" * 513}, "metadata.k"),
    ],
)
def test_labels_are_bounded(hall: Hall, metadata: dict[str, str], param: str | None) -> None:
    body = {"input_file_id": "file-x", "endpoint": "/v1/completions", "completion_window": "1h"}
    refused = hall.post("/v1/batches", body | {"metadata": metadata})
    assert refused.status_code == 400
    assert param is None or refused.json["error"]["param"] == param


def test_openais_client_takes_every_object_as_its_own(hall: Hall, tmp_path: Path) -> None:
    """Strictly: a missing member, or one of another type, is an error."""
    batch_id = hall.ended_batch(LINES, FAILING)
    strict = {
        "batch": openai.types.Batch,
        "upload": openai.types.Upload,
        "upload.part": UploadPart,
    }
    upload = hall.post(
        "/v1/uploads",
        {"filename": "f", "purpose": "batch", "bytes": 1, "mime_type": "text/plain"},
    ).json
    form = {"data": (io.BytesIO(b"x"), "upload")}
    path = f"/v1/uploads/{upload['id']}"
    part = hall.client.post(f"{path}/parts", data=form, headers=hall.key).json
    with hall.upkeep_running():
        done = hall.post(f"{path}/complete", {"part_ids": [part["id"]]}).json
    assert done["file"]["status"] == "processed"
    seen = [hall.look(batch_id), hall.look(hall.batch(LINES)), upload, part, done]
    seen.append(retry(hall, batch_id).json)
    hall.upkeep()
    seen += hall.get("/v1/batches").json["data"]
    for item in seen:
        model = strict[item["object"]]
        model.model_validate(item, strict=True)
