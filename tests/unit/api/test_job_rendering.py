"""What jobs tell of themselves: tags, errors, estimates."""

from __future__ import annotations

from typing import Any

import pytest

from api import job_rendering, objects, rendering
from api.estimates import Outlook, outlook
from shared.db.job_rows import MAX_POSITION, JobRow
from shared.db.queue_estimates import Pace
from tests.unit.api.test_rendering import CREATED, a_row

PACE = Pace(shards_a_second=4.0, shard_seconds=6.0)


def a_job(**changed: Any) -> JobRow:
    values = {
        "id": "job_1",
        "kind": "generate",
        "stage": "generate",
        "rows_total": 1,
        "now": CREATED + 100,
    }
    return a_row(**values | changed)


def shown(row: JobRow, expected: Outlook | None = None) -> dict[str, Any]:
    job = job_rendering.job(row, expected)
    objects.Job.model_validate(job)
    return job


@pytest.mark.parametrize(
    "changed",
    [{"version": 2}, {"rows_completed": 1}, {"rows_failed": 1}, {"progress": 0.5}],
)
def test_whatever_goes_on_changes_the_tag(changed: dict[str, Any]) -> None:
    before, after = job_rendering.etag(a_job()), job_rendering.etag(a_job(**changed))
    assert before.startswith('W/"')
    assert after != before
    assert job_rendering.place_in([before[3:-1]], after) is None


def test_a_tag_remembers_a_place_in_line_and_is_the_same_job_without_it() -> None:
    told = job_rendering.etag(a_job(queue_position=7))
    now = job_rendering.etag(a_job(queue_position=None))
    assert job_rendering.place_in(["x", told[3:-1]], now) == 7
    assert job_rendering.place_in([told[3:-1] + "x", "", ".q1", told], now) is None
    assert job_rendering.place_in([told[3:-1] + "0" * 40], now) == MAX_POSITION


def test_time_that_passes_does_not_change_the_tag_but_the_life_of_urls_does() -> None:
    before = job_rendering.etag(a_job())
    assert job_rendering.etag(a_job(now=CREATED + 5_000)) == before
    assert job_rendering.etag(a_job(), "7") != before


def test_a_rejected_batch_names_the_first_bad_line() -> None:
    errors = [{"code": "x", "message": "y", "line": None}, {"code": "x", "line": 3}, {"line": 4}]
    failed = a_row(state="failed", error_code="invalid_input_file", error_message="2 bad lines",
                   errors=errors)  # fmt: skip
    assert shown(failed)["error"] == {
        "code": "invalid_input_file",
        "message": "2 bad lines",
        "param": None,
        "line": 3,
    }


def test_a_batch_without_a_success_says_what_most_rows_failed_with() -> None:
    counts = {"batch_expired": 2, "engine_crashed": 5}
    done = a_row(state="succeeded", rows_total=7, rows_failed=7, error_counts=counts)
    job = shown(done)
    assert (job["succeeded"], job["failed"]) == (0, 7)
    assert job["error_counts"] == counts
    assert job["commonest_error"] == {"code": "engine_crashed", "count": 5}
    partly = shown(done._replace(rows_completed=1, rows_failed=6))
    assert partly["error_counts"] == counts
    assert "commonest_error" not in partly


def test_a_callers_own_id_is_shown_and_the_urls_are_by_ours() -> None:
    job = shown(a_job(client_id="crm:42"))
    assert job["client_id"] == "crm:42"
    assert [job[f"{what}_url"] for what in ("status", "result", "cancel", "events")] == [
        "/v1/jobs/job_1", "/v1/jobs/job_1/result", "/v1/jobs/job_1/cancel",
        "/v1/jobs/job_1/events",
    ]  # fmt: skip


# --- estimates ----------------------------------------------------------------------------------


def test_a_queued_job_starts_when_those_ahead_are_done_and_takes_as_long_as_others() -> None:
    assert outlook(a_job(queue_position=8), PACE) == Outlook(2.0, 8.0)
    job = shown(a_job(queue_position=8), Outlook(2.0, 8.0))
    assert (job["estimated_start"], job["eta_seconds"]) == (CREATED + 102, 8)


def test_of_a_queued_batch_or_graph_only_the_start_is_known() -> None:
    assert outlook(a_job(kind="batch", stage="validate", queue_position=4), PACE) == Outlook(1.0)
    assert outlook(a_job(kind="campaign", stage="step", queue_position=4), PACE) == Outlook(1.0)


@pytest.mark.parametrize(
    ("row", "pace"),
    [
        (a_job(queue_position=1), None),
        (a_job(queue_position=None), PACE),
        (a_job(queue_position=MAX_POSITION), PACE),
        (a_job(state="running", started_at=CREATED + 90), None),
        (a_job(state="running", started_at=CREATED + 90), PACE),  # longer than others already
        (a_job(state="running"), PACE),
        (a_job(state="succeeded", queue_position=1), PACE),
        (a_row(state="running", stage="generate", rows_total=9, now=CREATED + 9), PACE),
    ],
)
def test_nothing_is_guessed(row: JobRow, pace: Pace | None) -> None:
    assert outlook(row, pace) == Outlook()
    job = shown(row, outlook(row, pace))
    assert not {"estimated_start", "eta_seconds"} & set(job)


def test_a_running_job_takes_as_long_as_others_unless_it_says_how_far_it_is() -> None:
    running = a_job(state="running", started_at=CREATED + 98)
    assert outlook(running, PACE).ends_in == pytest.approx(4.0)
    assert outlook(running._replace(progress=0.25), PACE).ends_in == pytest.approx(6.0)


def test_a_running_batch_goes_on_as_it_did() -> None:
    batch = a_row(state="running", stage="generate", rows_total=10, rows_completed=3,
                  rows_failed=1, started_at=CREATED, in_progress_at=CREATED + 60,
                  now=CREATED + 100)  # fmt: skip
    assert outlook(batch, None).ends_in == pytest.approx(60.0)


@pytest.mark.parametrize(("eta", "seconds"), [(0.1, 1), (9.0, 4), (50.0, 25), (4_000.0, 60)])
def test_pollers_come_back_after_half_of_what_is_left(eta: float, seconds: int) -> None:
    assert rendering.retry_after(a_job(state="running"), eta) == seconds
