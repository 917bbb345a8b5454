"""Rows as the objects that tenants see, each held against its documented shape."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from api import batch_objects, batch_rendering, job_rendering, objects, rendering
from shared.db.job_rows import JobRow
from shared.ids import accepted_seconds, new_batch_id, new_file_id, new_job_id

CREATED = 1_800_000_000.0


def a_row(**changed: Any) -> JobRow:
    values: dict[str, Any] = dict.fromkeys(JobRow._fields)
    values |= {
        "id": "batch_1",
        "kind": "batch",
        "state": "queued",
        "stage": "validate",
        "endpoint": "/v1/completions",
        "batch_spec": {"completion_window": "24h"},
        "input_file_id": "file-1",
        "rows_total": 0,
        "rows_completed": 0,
        "rows_failed": 0,
        "input_tokens": 3,
        "output_tokens": 4,
        "created_at": CREATED,
        "expires_at": CREATED + 86_400,
        "version": 1,
    }
    return JobRow(**values | changed)


def batch(**changed: Any) -> dict[str, Any]:
    shown = batch_rendering.batch(a_row(**changed))
    batch_objects.Batch.model_validate(shown)
    return shown


@pytest.mark.parametrize(
    ("changed", "status"),
    [
        ({}, "validating"),
        ({"state": "running"}, "validating"),
        ({"state": "running", "stage": "generate"}, "in_progress"),
        ({"state": "running", "stage": "assemble"}, "finalizing"),
        ({"state": "running", "stage": "generate", "stop_reason": "cancelled"}, "cancelling"),
        ({"state": "running", "stage": "assemble", "stop_reason": "cancelled"}, "cancelling"),
        ({"state": "running", "stage": "assemble", "stop_reason": "expired"}, "finalizing"),
        ({"state": "succeeded", "stage": "assemble"}, "completed"),
        ({"state": "failed"}, "failed"),
        ({"state": "cancelled", "stop_reason": "cancelled"}, "cancelled"),
        ({"state": "expired", "stop_reason": "expired"}, "expired"),
    ],
)
def test_a_batch_shows_openais_status(changed: dict[str, Any], status: str) -> None:
    assert batch(**changed)["status"] == status


@pytest.mark.parametrize(
    ("state", "reason", "moment"),
    [
        ("succeeded", None, "completed_at"),
        ("failed", None, "failed_at"),
        ("expired", "expired", "expired_at"),
        ("cancelled", "cancelled", "cancelled_at"),
    ],
)
def test_an_end_is_told_at_its_own_time_alone(state: str, reason: str | None, moment: str) -> None:
    shown = batch(
        state=state, stop_reason=reason, ended_at=CREATED + 9, cancel_requested_at=CREATED + 5
    )
    ends = {"completed_at", "failed_at", "expired_at", "cancelled_at"}
    assert {name for name in ends if shown[name] is not None} == {moment}
    assert shown[moment] == CREATED + 9
    assert shown["cancelling_at"] == (CREATED + 5 if reason == "cancelled" else None)


def test_absent_files_are_null_and_counts_are_there_from_the_start() -> None:
    shown = batch()
    assert shown["output_file_id"] is None
    assert shown["error_file_id"] is None
    assert shown["request_counts"] == {"total": 0, "completed": 0, "failed": 0}
    assert shown["usage"]["total_tokens"] == 7
    assert batch(state="succeeded")["usage"]["total_tokens"] == 7


def test_a_rejected_batch_lists_its_bad_lines() -> None:
    line = {"code": "invalid_json_line", "message": "not JSON", "line": 3, "param": None}
    assert batch(state="failed", errors=[line])["errors"]["data"] == [line]
    lost = batch(state="failed", error_code="worker_lost", error_message="gone")
    assert lost["errors"]["data"][0]["code"] == "worker_lost"
    assert batch()["errors"] is None


def test_a_job_is_shown_with_its_result_as_it_is_stored() -> None:
    row = a_row(id="job_1", kind="generate", state="succeeded", rows_total=1, rows_completed=1)
    body = job_rendering.job_with_result(row, '{"text": "\\ud83d\\u0000"}')
    shown = json.loads(body)
    objects.Job.model_validate(shown | {"result": None})
    assert shown["result"] == {"text": "\ud83d\0"}
    assert shown["progress"] == 1.0
    assert "queue_position" not in shown


def test_a_new_job_is_shown_as_it_will_be_read() -> None:
    job_id = new_job_id()
    shown = job_rendering.job(
        rendering.new_job(
            job_id, endpoint="/v1/x", model="m", metadata={"a": "b"}, expires_in_seconds=60
        )
    )
    objects.Job.model_validate(shown)
    assert abs(shown["created_at"] - time.time()) < 60
    assert shown["expires_at"] == shown["created_at"] + 60
    stored = a_row(id=job_id, created_at=CREATED, expires_at=CREATED + 60.000_4)
    later = job_rendering.job(stored)
    assert later["created_at"] == shown["created_at"]
    assert later["expires_at"] == shown["expires_at"]


@pytest.mark.parametrize("make", [new_job_id, new_batch_id, new_file_id])
def test_an_id_tells_when_it_was_made(make: Any) -> None:
    before = int(time.time())
    seconds = accepted_seconds(make())
    assert seconds is not None
    assert before <= seconds <= int(time.time())


@pytest.mark.parametrize("other", ["", "job_1", "x" * 40, "job_" + "I" * 26])
def test_an_id_of_others_tells_nothing(other: str) -> None:
    assert accepted_seconds(other) is None


@pytest.mark.parametrize("state", ["queued", "running"])
@pytest.mark.parametrize("kind", ["generate", "batch", "video", "campaign"])
@pytest.mark.parametrize("position", [None, 0, 9, 1_000])
def test_retry_after_is_a_whole_number_of_seconds_up_to_a_minute(
    state: str, kind: str, position: int | None
) -> None:
    seconds = rendering.retry_after(a_row(state=state, kind=kind, queue_position=position))
    assert 1 <= seconds <= 60


def test_progress_counts_rows_that_failed_too() -> None:
    row = a_row(state="running", rows_total=3, rows_completed=1, rows_failed=1)
    assert job_rendering.job(row)["progress"] == pytest.approx(2 / 3, abs=1e-4)
    assert job_rendering.job(a_row(state="succeeded", rows_total=3))["progress"] == 1.0


def test_progress_within_a_row_and_of_running_steps_counts() -> None:
    row = a_row(id="job_1", kind="generate", state="running", rows_total=1, progress=0.25)
    assert job_rendering.job(row)["progress"] == 0.25
    graph = a_row(
        id="campaign_1", kind="campaign", state="running", stage="step", rows_total=4,
        rows_completed=2, progress=0.5,
    )  # fmt: skip
    shown = job_rendering.job(graph)
    assert shown["progress"] == pytest.approx(2.5 / 4)
    assert shown["steps_url"] == "/v1/jobs/campaign_1/steps"
    objects.Job.model_validate(shown)


def test_a_page_knows_whether_there_is_more() -> None:
    items = [{"id": str(number)} for number in range(3)]
    full = rendering.page(items, 2)
    assert (full["first_id"], full["last_id"], full["has_more"]) == ("0", "1", True)
    rest = rendering.page(items[2:], 2)
    assert (rest["first_id"], rest["last_id"], rest["has_more"]) == ("2", "2", False)
    assert rendering.page([], 2) == {
        "object": "list",
        "data": [],
        "has_more": False,
        "first_id": None,
        "last_id": None,
    }
