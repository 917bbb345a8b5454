"""Batches over HTTP: every stage as OpenAI's clients see it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import Connection, text

from api import batch_objects, objects
from shared import lifecycle
from shared.lifecycle import BadLine, working
from shared.lifecycle.working import Claim, NewFile, SliceEnd, UsageLine
from shared.sharding import Slice
from shared.states import ShardState, StopReason
from shared.storage.base import StoredObject
from tests.integration.api_case import MODEL, ApiCase, api_fixture

__all__ = ["api_fixture"]

ENDPOINT = "/v1/completions"


class Worker:
    """Takes a batch through its stages, as the upkeep and text workers would."""

    def __init__(self, api: ApiCase, batch_id: str) -> None:
        self._api = api
        self._batch_id = batch_id
        with api.begin() as connection:
            self._me = api.open_session(connection)

    def _claim(self, connection: Connection, pool: str) -> Claim:
        working.dispatch(connection, pool=pool, window=32)
        (claim,) = working.claim(
            connection, session_id=self._me, pools=[pool], max_shards=1, max_rows=1
        )
        return claim

    def validate(self) -> None:
        with self._api.begin() as connection:
            claim = self._claim(connection, "upkeep")
            slices = [Slice(0, 0, 10, 1, 4, "text"), Slice(1, 10, 20, 5, 2, "text")]
            assert working.finish_validation(connection, self._me, claim.held, slices=slices)

    def reject(self) -> None:
        with self._api.begin() as connection:
            claim = self._claim(connection, "upkeep")
            bad = [BadLine("invalid_json_line", "not JSON", line=2)]
            working.reject_batch(connection, self._me, claim.held, errors=bad, bad_lines=1)

    def begin_slice(self) -> Claim:
        with self._api.begin() as connection:
            return self._claim(connection, "text")

    def report(self, claim: Claim, completed: int, failed: int) -> None:
        with self._api.begin() as connection:
            working.report_progress(connection, self._me, {claim.held: (completed, failed)})

    def finish_slice(self, claim: Claim, completed: int, failed: int) -> None:
        output = StoredObject(f"t/x/{claim.ordinal}", "0" * 64, 3)
        usage = [UsageLine(ENDPOINT, MODEL, completed, 10 * completed, completed)]
        with self._api.begin() as connection:
            assert working.finish_slice(
                connection,
                self._me,
                SliceEnd(claim.held, ShardState.SUCCEEDED, output, None, completed, failed, usage),
            )

    def assemble(self, completed: int, failed: int) -> None:
        with self._api.begin() as connection:
            claim = self._claim(connection, "upkeep")
            stored = self._api.services.store.put_bytes(
                f"t/x/{self._batch_id}", b"{}\n", media_type="application/jsonl"
            )
            assert working.finish_assembly(
                connection,
                self._me,
                claim.held,
                output=NewFile(f"file-{self._batch_id}", "output.jsonl", stored),
                errors=None,
                rows_completed=completed,
                rows_failed=failed,
                keep_seconds=3_600,
            )


def look(api: ApiCase, batch_id: str) -> dict[str, Any]:
    batch = api.get(f"/v1/batches/{batch_id}").json
    batch_objects.Batch.model_validate(batch)
    job = api.get(f"/v1/jobs/{batch_id}").json
    objects.Job.model_validate(job)
    assert job["kind"] == "batch"
    return dict(batch)


def counts(batch: dict[str, Any]) -> tuple[int, int, int]:
    found = batch["request_counts"]
    return found["total"], found["completed"], found["failed"]


def test_a_batch_through_all_its_stages(api: ApiCase) -> None:
    batch_id = api.submit_batch(metadata={"a": "b"})
    assert api.bell.rung == ["upkeep"]
    worker = Worker(api, batch_id)
    batch = look(api, batch_id)
    assert (batch["status"], counts(batch)) == ("validating", (0, 0, 0))
    assert batch["expires_at"] == batch["created_at"] + 86_400
    worker.validate()
    batch = look(api, batch_id)
    assert (batch["status"], counts(batch)) == ("in_progress", (6, 0, 0))
    assert batch["in_progress_at"] is not None
    first = worker.begin_slice()
    worker.report(first, 2, 1)
    assert counts(look(api, batch_id)) == (6, 2, 1)
    assert api.get(f"/v1/jobs/{batch_id}").json["progress"] == 0.5
    assert counts(api.get("/v1/batches").json["data"][0]) == (6, 2, 1)
    worker.finish_slice(first, 3, 1)
    assert counts(look(api, batch_id)) == (6, 3, 1)
    second = worker.begin_slice()
    worker.report(second, 1, 0)
    assert counts(look(api, batch_id)) == (6, 4, 1)
    worker.finish_slice(second, 2, 0)
    batch = look(api, batch_id)
    assert (batch["status"], counts(batch)) == ("finalizing", (6, 5, 1))
    assert batch["finalizing_at"] is not None
    assert (batch["output_file_id"], batch["usage"]["total_tokens"]) == (None, 55)
    worker.assemble(5, 1)
    batch = look(api, batch_id)
    assert (batch["status"], counts(batch)) == ("completed", (6, 5, 1))
    assert batch["completed_at"] >= batch["finalizing_at"] >= batch["in_progress_at"]
    assert batch["error_file_id"] is None
    assert (batch["usage"]["input_tokens"], batch["usage"]["total_tokens"]) == (50, 55)
    assert batch["metadata"] == {"a": "b"}
    output = api.get(f"/v1/files/{batch['output_file_id']}")
    assert output.json["purpose"] == "batch_output"
    job = api.get(f"/v1/jobs/{batch_id}").json
    assert [item["file_id"] for item in job["artifacts"]] == [batch["output_file_id"]]
    assert api.get(job["artifacts"][0]["content_url"]).status_code == 302


def test_a_rejected_batch_lists_what_is_wrong(api: ApiCase) -> None:
    batch_id = api.submit_batch()
    Worker(api, batch_id).reject()
    batch = look(api, batch_id)
    assert batch["status"] == "failed"
    assert batch["failed_at"] is not None
    (error,) = batch["errors"]["data"]
    assert (error["code"], error["line"]) == ("invalid_json_line", 2)


# --- cancelling at each stage --------------------------------------------------------------------


def test_cancelled_before_it_was_read(api: ApiCase) -> None:
    batch_id = api.submit_batch()
    batch = api.post(f"/v1/batches/{batch_id}/cancel")
    assert (batch.status_code, batch.json["status"]) == (200, "cancelled")
    assert api.post(f"/v1/batches/{batch_id}/cancel").json == batch.json


def test_cancelled_while_it_runs(api: ApiCase) -> None:
    batch_id = api.submit_batch()
    worker = Worker(api, batch_id)
    worker.validate()
    slice_ = worker.begin_slice()
    batch = api.post(f"/v1/batches/{batch_id}/cancel").json
    assert batch["status"] == "cancelling"
    assert batch["cancelling_at"] is not None
    assert api.post(f"/v1/batches/{batch_id}/cancel").status_code == 200
    worker.finish_slice(slice_, 3, 1)
    assert look(api, batch_id)["status"] == "cancelling"
    worker.assemble(3, 3)
    batch = look(api, batch_id)
    assert batch["status"] == "cancelled"
    assert batch["cancelled_at"] is not None
    assert batch["output_file_id"] is not None


def test_too_late_to_cancel_when_results_are_put_together(api: ApiCase) -> None:
    batch_id = api.submit_batch()
    worker = Worker(api, batch_id)
    worker.validate()
    for rows in (4, 2):
        worker.finish_slice(worker.begin_slice(), rows, 0)
    refused = api.post(f"/v1/batches/{batch_id}/cancel")
    assert (refused.status_code, refused.headers["x-should-retry"]) == (409, "false")
    worker.assemble(6, 0)
    refused = api.post(f"/v1/batches/{batch_id}/cancel")
    assert (refused.status_code, refused.headers["x-should-retry"]) == (409, "false")


def test_an_expired_batch(api: ApiCase) -> None:
    batch_id = api.submit_batch()
    worker = Worker(api, batch_id)
    worker.validate()
    with api.begin() as connection:
        tenant = connection.execute(text("SELECT tenant_id FROM jobs")).scalar_one()
        lifecycle.request_stop(
            connection, tenant_id=tenant, job_id=batch_id, reason=StopReason.EXPIRED
        )
    assert look(api, batch_id)["status"] in {"in_progress", "finalizing"}
    worker.assemble(0, 6)
    batch = look(api, batch_id)
    assert batch["status"] == "expired"
    assert batch["expired_at"] is not None
    assert batch["cancelling_at"] is None


# --- submitting ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "status", "code", "param"),
    [
        ({"input_file_id": "file-absent"}, 404, "not_found", "input_file_id"),
        ({"input_file_id": "a\0b"}, 404, "not_found", "input_file_id"),
        ({"endpoint": "/v1/audio/transcriptions"}, 400, "unsupported_endpoint", "endpoint"),
        ({"completion_window": "31d"}, 400, "invalid_request", "completion_window"),
        ({"metadata": {"a": 1}}, 400, "invalid_request", "metadata.a"),
        ({"output_expires_after": {"anchor": "created_at", "seconds": 1}}, 400, "invalid_request",
         "output_expires_after.seconds"),
        ({"colour": 1}, 400, "invalid_request", "colour"),
    ],
)  # fmt: skip
def test_a_bad_batch_names_the_field(
    api: ApiCase, changed: dict[str, Any], status: int, code: str, param: str
) -> None:
    file_id = api.upload().json["id"]
    body = {"input_file_id": file_id, "endpoint": ENDPOINT, "completion_window": "24h"}
    reply = api.post("/v1/batches", body | changed)
    assert reply.status_code == status
    assert (reply.json["error"]["code"], reply.json["error"]["param"]) == (code, param)
    assert api.get("/v1/batches").json["data"] == []


def test_an_input_has_to_be_uploaded_for_it(api: ApiCase) -> None:
    file_id = api.upload(purpose="user_data").json["id"]
    body = {"input_file_id": file_id, "endpoint": ENDPOINT, "completion_window": "24h"}
    reply = api.post("/v1/batches", body)
    assert (reply.status_code, reply.json["error"]["param"]) == (400, "input_file_id")


def test_the_life_of_results_reaches_the_worker(api: ApiCase) -> None:
    after = {"anchor": "created_at", "seconds": 3_600}
    api.submit_batch(output_expires_after=after, completion_window="30m")
    with api.begin() as connection:
        spec = connection.execute(text("SELECT spec FROM jobs")).scalar_one()
    assert spec["output_expires_after_seconds"] == 3_600


def test_ten_at_once_with_one_key_make_one_batch(api: ApiCase) -> None:
    file_id = api.upload().json["id"]
    body = {"input_file_id": file_id, "endpoint": ENDPOINT, "completion_window": "1h"}

    def submit(_: int) -> tuple[int, str]:
        reply = api.app.test_client().post(
            "/v1/batches", json=body, headers=api.key | {"Idempotency-Key": "b"}
        )
        return reply.status_code, reply.json.get("id", "")

    with ThreadPoolExecutor(10) as threads:
        replies = list(threads.map(submit, range(10)))
    # On a busy machine some may be told that the first is still under way.
    assert {status for status, _ in replies} <= {200, 409}
    assert len({batch_id for status, batch_id in replies if status == 200}) == 1
    other = api.post("/v1/batches", body | {"completion_window": "2h"}, {"Idempotency-Key": "b"})
    assert other.json["error"]["code"] == "idempotency_mismatch"


def test_a_single_generation_is_not_a_batch(api: ApiCase) -> None:
    job_id = api.submit()
    assert api.get(f"/v1/batches/{job_id}").status_code == 404
    assert api.post(f"/v1/batches/{job_id}/cancel").status_code == 404
    assert api.get(f"/v1/jobs/{job_id}").json["state"] == "queued"


def test_a_list_is_walked_by_its_cursor(api: ApiCase) -> None:
    batches = [api.submit_batch() for _ in range(5)]
    api.submit()
    first = api.get("/v1/batches?limit=3").json
    batch_objects.BatchList.model_validate(first)
    assert first["has_more"]
    rest = api.get(f"/v1/batches?limit=3&after={first['last_id']}").json
    assert not rest["has_more"]
    seen = [batch["id"] for batch in first["data"] + rest["data"]]
    assert seen == sorted(batches)[::-1]
