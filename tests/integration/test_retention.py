"""Policies: who says for how long, what goes then, what stays, and what is left of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from api import retention_objects
from shared.db.usage import count_usage
from shared.errors import StorageUnavailable
from shared.retention import BadRetention, parse_retention
from shared.storage.base import Store
from tests.integration.api_case import ADMIN
from tests.integration.media_case import PAINTER, WRITER, MediaCase, picture_answer
from tests.integration.model_job_api_case import tuned
from tests.integration.retention_case import let_pass, rows_that_mention
from tests.integration.tuning_case import TuningPlant
from worker.upkeep.cleaner import Cleaner
from worker.upkeep.retention import Retention

PICTURE = {"endpoint": "/v1/images/generations", "body": {"model": PAINTER, "prompt": "x"}}
WORDS = {"endpoint": "/v1/completions", "body": {"model": WRITER, "prompt": "a secret"}}


@pytest.fixture(name="media")
def media_fixture(database_url: str, tmp_path: Path) -> Iterator[MediaCase]:
    case = MediaCase(database_url, tmp_path, retention_days="jobs=90,usage=400")
    yield case
    case.close()


def tenant_of(media: MediaCase) -> str:
    return str(media.get("/v1/retention").json["tenant_id"])


def put(media: MediaCase, **days: int | None) -> Any:
    path = f"/v1/admin/tenants/{tenant_of(media)}/retention"
    return media.client.put(path, json=days, headers=ADMIN)


def upkeep(media: MediaCase, days: str = "") -> dict[str, int]:
    """A run over what is due, and the cleaner's, after usage was added up."""
    with media.begin() as connection:
        count_usage(connection)
    gone = Retention(media.engine, media.services.store, parse_retention(days)).run()
    Cleaner(media.engine, media.services.store).run()
    return gone


def kept_files(media: MediaCase) -> int:
    top = media.settings.storage_dir / "t"
    return len([path for path in top.rglob("*") if path.is_file()])


def answered(media: MediaCase, body: dict[str, Any]) -> str:
    assert media.post("/v1/jobs", body).status_code == 202
    job_id = media.finish_next(picture_answer())
    with media.begin() as connection:  # its webhooks were made
        connection.execute(text("UPDATE events SET announced = true"))
    return job_id


def pass_days(media: MediaCase, days: float) -> None:
    with media.begin() as connection:
        let_pass(connection, days)


# --- who says what ------------------------------------------------------------------------------


def test_a_tenant_has_days_of_its_own_before_those_of_the_plant(media: MediaCase) -> None:
    found = media.get("/v1/retention").json
    retention_objects.RetentionPolicy.model_validate(found)
    assert (found["days"]["jobs"], found["days"]["outputs"], found["own"]) == (90, None, [])
    changed = put(media, jobs=None, outputs=7)
    assert changed.status_code == 400  # usage would go before jobs
    assert changed.json["error"]["param"] == "usage"
    changed = put(media, jobs=30, outputs=7)
    assert changed.status_code == 200
    assert changed.json == media.get("/v1/retention").json
    assert (changed.json["days"]["usage"], changed.json["own"]) == (400, ["outputs", "jobs"])
    path = f"/v1/admin/tenants/{tenant_of(media)}/retention"
    assert media.client.delete(path, headers=ADMIN).json == found


@pytest.mark.parametrize(
    ("days", "param"),
    [({"jobs": 0}, "jobs"), ({"jobs": "7"}, "jobs"), ({"pets": 1}, "pets"),
     ({"archive": 5}, "archive"), ({"events": 40_000}, "events")],
)  # fmt: skip
def test_days_that_cannot_be_are_refused_by_name(
    media: MediaCase, days: dict[str, Any], param: str
) -> None:
    reply = put(media, **days)
    assert reply.status_code == 400
    assert reply.json["error"]["param"] == param


def test_policies_are_the_administrators(media: MediaCase) -> None:
    path = f"/v1/admin/tenants/{tenant_of(media)}/retention"
    assert media.client.put(path, json={}, headers=media.key).status_code == 403
    nobody = "/v1/admin/tenants/ten_00000000000000000000000000/retention"
    for call in (media.client.put, media.client.get, media.client.delete):
        options = {"json": {}} if call == media.client.put else {}
        assert call(nobody, headers=ADMIN, **options).status_code == 404


@pytest.mark.parametrize("listed", ["jobs", "jobs=0", "jobs=1,jobs=2", "pets=3", "jobs=9,usage=8"])
def test_a_bad_setting_is_refused(listed: str) -> None:
    with pytest.raises(BadRetention):
        parse_retention(listed)


# --- jobs ---------------------------------------------------------------------------------------


def test_a_call_of_text_becomes_a_line_of_the_archive_without_its_words(media: MediaCase) -> None:
    job_id, young = answered(media, WORDS), None
    pass_days(media, 89)
    assert upkeep(media, "jobs=90") == {}
    pass_days(media, 2)
    young = answered(media, WORDS)
    assert upkeep(media, "jobs=90") == {"jobs": 1}
    assert media.get(f"/v1/jobs/{job_id}").status_code == 404
    assert media.get(f"/v1/jobs/{young}").status_code == 200
    listed = media.get("/v1/archived_jobs").json
    retention_objects.ArchivedJobList.model_validate(listed)
    (line,) = listed["data"]
    assert (line["id"], line["state"], line["model"]) == (job_id, "succeeded", WRITER)
    day = line["ended_at"] // 86_400 * 86_400
    with media.begin() as connection:
        left = rows_that_mention(connection, job_id)
        date = connection.execute(
            text("SELECT to_char(to_timestamp(:at) AT TIME ZONE 'UTC', 'YYYY-MM-DD')"), {"at": day}
        ).scalar_one()
    assert left == {"archived_jobs": 1, "usage": 1}
    assert media.get(f"/v1/archived_jobs?day={date}").json["data"] == [line]
    assert media.get("/v1/archived_jobs?day=2001-01-01").json["data"] == []
    assert media.get("/v1/archived_jobs?day=yesterday").json["error"]["param"] == "day"
    path = f"/v1/admin/tenants/{tenant_of(media)}/archived_jobs"
    assert media.client.get(path, headers=ADMIN).json == listed


def test_the_archive_and_usage_end_by_days_of_their_own(media: MediaCase) -> None:
    answered(media, WORDS)
    pass_days(media, 100)
    assert upkeep(media, "jobs=90,usage=150,archive=120") == {"jobs": 1}
    pass_days(media, 30)
    assert upkeep(media, "jobs=90,usage=150,archive=120") == {"archive": 1}
    pass_days(media, 30)
    assert upkeep(media, "jobs=90,usage=150,archive=120") == {"usage": 1}


def test_an_archived_job_can_be_deleted(media: MediaCase) -> None:
    job_id = answered(media, WORDS)
    pass_days(media, 100)
    upkeep(media, "jobs=90")
    reply = media.delete(f"/v1/jobs/{job_id}")
    assert (reply.status_code, reply.json["rows"]) == (202, {"archived_jobs": 1})
    assert media.get("/v1/archived_jobs").json["data"] == []


def test_a_job_with_files_goes_with_them_once_it_was_cleaned(media: MediaCase) -> None:
    job_id = answered(media, PICTURE)
    pass_days(media, 100)
    assert upkeep(media, "jobs=90") == {}  # which marked it as clean
    assert upkeep(media, "jobs=90") == {"jobs": 1}
    assert media.get(f"/v1/jobs/{job_id}").status_code == 404
    assert kept_files(media) == 2
    pass_days(media, 1)
    assert upkeep(media, "jobs=90") == {"hidden": 1}
    assert kept_files(media) == 0
    with media.begin() as connection:
        assert rows_that_mention(connection, job_id) == {"archived_jobs": 1, "usage": 1}


def test_a_training_stays_as_long_as_its_model(media: MediaCase) -> None:
    plant = TuningPlant(media.settings.database_url)
    job_id, model_id = tuned(media, plant)
    plant.close()
    with media.begin() as connection:
        connection.execute(text("UPDATE events SET announced = true"))
    pass_days(media, 100)
    for _ in range(2):
        assert "jobs" not in upkeep(media, "jobs=90")
    refused = media.delete(f"/v1/jobs/{job_id}")
    assert (refused.status_code, model_id in refused.json["detail"]) == (409, True)
    assert media.delete(f"/v1/models/{model_id}").status_code == 200
    with media.begin() as connection:
        connection.execute(
            text("UPDATE models SET deleted_at = deleted_at - interval '2 hours',"
                 " cleaned_at = clock_timestamp()")
        )  # fmt: skip
    assert upkeep(media, "jobs=90") == {"jobs": 1}


# --- what goes before its job -------------------------------------------------------------------


def test_outputs_go_and_their_job_stays(media: MediaCase) -> None:
    job_id = answered(media, PICTURE)
    (picture,) = [
        item["id"]
        for item in media.get(f"/v1/jobs/{job_id}/artifacts").json["data"]
        if item["role"] == "image"
    ]
    body = {"model": PAINTER, "prompt": "x", "image": {"artifact_id": picture}}
    editor = media.post("/v1/jobs", {"endpoint": "/v1/images/edits", "body": body})
    assert editor.status_code == 202, editor.json
    pass_days(media, 31)
    assert upkeep(media, "outputs=30") == {"outputs": 1}  # the thumbnail: a job waits for the other
    media.post(f"/v1/jobs/{editor.json['id']}/cancel")
    assert upkeep(media, "outputs=30") == {"outputs": 1}
    assert kept_files(media) == 0
    assert media.get(f"/v1/jobs/{job_id}").status_code == 200
    assert media.get(f"/v1/artifacts/{picture}").status_code == 404
    assert upkeep(media, "outputs=30") == {}  # the mark is beyond it


class FullOfRefusals:
    """A store that removes nothing."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def _refuse(self, *_: Any, **__: Any) -> None:
        raise StorageUnavailable("no answer")

    delete = delete_keys = delete_prefix = _refuse


@pytest.mark.parametrize("days", ["outputs=30", "jobs=30"])
def test_what_the_store_keeps_keeps_its_row(media: MediaCase, days: str) -> None:
    """Else nobody would know of the object any more."""
    job_id = answered(media, PICTURE)
    pass_days(media, 31)
    store: Any = FullOfRefusals(media.services.store)
    for _ in range(3):  # cleaned, hidden, and then it would go for good
        Cleaner(media.engine, store).run()
        Retention(media.engine, store, parse_retention(days)).run()
        pass_days(media, 1)
    assert kept_files(media) == 2
    with media.begin() as connection:
        found = rows_that_mention(connection, job_id)
    assert (found["jobs"], found["artifacts"]) == (1, 2)
    upkeep(media, days)
    pass_days(media, 1)
    upkeep(media, days)
    assert kept_files(media) == 0


def test_input_files_go_unless_a_call_that_waits_names_them(media: MediaCase) -> None:
    named = media.upload(b"1", purpose="vision").json["id"]
    other = media.upload(b"2", purpose="user_data").json["id"]
    body = {"model": PAINTER, "prompt": "x", "image": {"file_id": named}}
    editor = media.post("/v1/jobs", {"endpoint": "/v1/images/edits", "body": body})
    assert editor.status_code == 202, editor.json
    pass_days(media, 31)
    assert upkeep(media, "input_files=30") == {"input_files": 2}
    assert media.get(f"/v1/files/{other}").status_code == 404
    assert kept_files(media) == 1
    media.post(f"/v1/jobs/{editor.json['id']}/cancel")
    upkeep(media, "input_files=30")
    assert kept_files(media) == 0


def test_events_go_and_their_job_stays(media: MediaCase) -> None:
    job_id = answered(media, WORDS)
    with media.begin() as connection:
        told = rows_that_mention(connection, job_id)["events"]
    pass_days(media, 8)
    assert upkeep(media, "events=7") == {"events": told}
    with media.begin() as connection:
        assert "events" not in rows_that_mention(connection, job_id)
    assert media.get(f"/v1/jobs/{job_id}").status_code == 200
    assert upkeep(media, "events=7") == {}


def test_one_tenants_policy_is_nothing_to_another(media: MediaCase) -> None:
    first = answered(media, WORDS)
    assert put(media, jobs=30).status_code == 200
    mine, media.key = media.key, media.new_tenant()
    second = answered(media, WORDS)
    pass_days(media, 31)
    assert upkeep(media) == {"jobs": 1}
    assert media.get(f"/v1/jobs/{second}").status_code == 200
    media.key = mine
    assert media.get(f"/v1/jobs/{first}").status_code == 404
