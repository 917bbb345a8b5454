"""Files that schedules name are in use while a run may come: they outlive their time, policies and
deletions, and are let go by whoever pauses or deletes the schedule."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import pytest
from sqlalchemy import text

from shared.db.old_outputs import end_files
from shared.errors import NotFound
from shared.storage.base import Store
from tests.integration.feed_case import SCHEDULES, FeedCase, feeds_fixture, rss
from tests.integration.retention_case import let_pass
from worker.upkeep.cleaner import Cleaner

__all__ = ["feeds_fixture"]

EMBEDDER = "embedder"
AUDIENCES = b"name,tone\nsailors,salty\n"
EXAMPLES = b'{"title":"x","text":"Praise of x"}\n'


@pytest.fixture(name="named")
def named_fixture(feeds: FeedCase) -> dict[str, str]:
    """A file of each kind that a template may name."""
    feeds.sql(
        "INSERT INTO models (id, pool, engine, source, endpoints)"
        " VALUES (:id, 'text', 'fake', 'x', '{/v1/embeddings}')",
        id=EMBEDDER,
    )
    feeds.server.body = rss("a")
    return {
        "audiences": feeds.data(AUDIENCES, "audiences.csv"),
        "documents": feeds.data(b"Returns take 30 days.\n", "returns.md"),
        "examples": feeds.data(EXAMPLES, "examples.jsonl"),
    }


def template(named: dict[str, str]) -> str:
    return f"""---
audiences: {{file: {named["audiences"]}}}
documents: {{files: [{named["documents"]}], query: "{{{{ title }}}}", model: {EMBEDDER}}}
examples_from: {{file: {named["examples"]}, n: 1, model: {EMBEDDER}}}
---
Praise {{{{ title }}}} to {{{{ audience.name }}}}.
"""


def schedule(feeds: FeedCase, named: dict[str, str], **more: Any) -> str:
    return feeds.schedule(template=template(named), **more)


def clean(feeds: FeedCase) -> None:
    Cleaner(feeds.engine, feeds.services.store).run()


def left(feeds: FeedCase, named: dict[str, str]) -> set[str]:
    """Those whose rows and objects are there."""
    store = feeds.services.store
    rows = feeds.sql(
        "SELECT id, storage_key FROM files WHERE id = ANY(:ids) AND deleted_at IS NULL",
        ids=list(named.values()),
    )
    there = {row.id for row in rows if has_object(store, row.storage_key)}
    return {kind for kind, file_id in named.items() if file_id in there}


def has_object(store: Store, key: str) -> bool:
    try:
        return store.size(key) >= 0
    except NotFound:
        return False


def end_of_life(feeds: FeedCase, named: dict[str, str]) -> None:
    feeds.sql(
        "UPDATE files SET expires_at = clock_timestamp() - interval '1 s' WHERE id = ANY(:ids)",
        ids=list(named.values()),
    )


def test_files_past_their_time_stay_until_nobody_may_come_for_them(
    feeds: FeedCase, named: dict[str, str]
) -> None:
    schedule_id = schedule(feeds, named)
    end_of_life(feeds, named)
    clean(feeds)
    assert left(feeds, named) == set(named)
    feeds.run_due()
    (run,) = feeds.history(schedule_id)
    assert (run["status"], run["error"]) == ("producing", None)
    assert feeds.post(f"/v1/productions/{run['production_id']}/cancel").status_code == 200
    feeds.runs.close()
    clean(feeds)
    assert left(feeds, named) == set(named)
    assert feeds.post(f"{SCHEDULES}/{schedule_id}/pause").status_code == 200
    clean(feeds)
    assert left(feeds, named) == set()
    gone = feeds.post(f"{SCHEDULES}/{schedule_id}/resume")
    assert (gone.status_code, gone.json["error"]["code"]) == (409, "conflict")
    assert any(file_id in gone.json["error"]["message"] for file_id in named.values())
    assert feeds.post(f"{SCHEDULES}/{schedule_id}/run").status_code == 409
    assert feeds.look(schedule_id)["status"] == "paused"


def test_policies_leave_files_that_schedules_name(feeds: FeedCase, named: dict[str, str]) -> None:
    schedule_id = schedule(feeds, named)
    other = feeds.data(AUDIENCES, "other.csv")
    tenant_id = feeds.tenant_id
    with feeds.begin() as connection:
        let_pass(connection, 40)
        assert end_files(connection, "input_files", tenant_id, 30) == 1
    clean(feeds)
    assert feeds.get(f"/v1/files/{other}").status_code == 404
    for file_id in named.values():
        assert feeds.get(f"/v1/files/{file_id}").status_code == 200
    assert feeds.delete(f"{SCHEDULES}/{schedule_id}").status_code == 200
    with feeds.begin() as connection:
        assert end_files(connection, "input_files", tenant_id, 30) == len(named)
    clean(feeds)
    assert left(feeds, named) == set()


@pytest.mark.parametrize("kind", ["audiences", "documents", "examples"])
def test_a_file_that_a_live_schedule_names_is_not_deleted(
    feeds: FeedCase, named: dict[str, str], kind: str
) -> None:
    schedule_id = schedule(feeds, named)
    file = f"/v1/files/{named[kind]}"
    refused = feeds.delete(file)
    assert (refused.status_code, refused.json["error"]["code"]) == (409, "conflict")
    assert feeds.post(f"{SCHEDULES}/{schedule_id}/pause").status_code == 200
    assert feeds.post(f"{SCHEDULES}/{schedule_id}/run").status_code == 202
    assert feeds.delete(file).status_code == 409  # a run was asked for
    claim = feeds.runs.begin()
    assert feeds.delete(file).status_code == 409  # and is being read for
    assert claim is not None
    feeds.runs.run(claim)
    (run,) = feeds.history(schedule_id)
    assert feeds.delete(file).status_code == 409  # its production reads it
    assert feeds.post(f"/v1/productions/{run['production_id']}/cancel").status_code == 200
    assert feeds.delete(file).status_code == 200
    assert feeds.post(f"{SCHEDULES}/{schedule_id}/resume").status_code == 409


def test_a_job_whose_output_a_schedule_names_is_not_deleted(
    feeds: FeedCase, named: dict[str, str]
) -> None:
    made = feeds.submit_production("Praise {{ name }}", b"name\nchair\n", output_format="csv")
    feeds.run()
    output = feeds.see(made)["output_file_id"]
    named = named | {"audiences": output}
    assert feeds.get(f"/v1/files/{output}").json["filename"].endswith(".csv")
    schedule_id = schedule(feeds, named)
    refused = feeds.delete(f"/v1/jobs/{made}")
    assert (refused.status_code, refused.json["error"]["code"]) == (409, "conflict")
    assert output in refused.json["error"]["message"]
    assert feeds.delete(f"{SCHEDULES}/{schedule_id}").status_code == 200
    assert feeds.delete(f"/v1/jobs/{made}").status_code == 202


def test_schedules_from_before_know_what_they_name(feeds: FeedCase, named: dict[str, str]) -> None:
    """The statement of the migration."""
    migration = import_module("migrations.versions.0022_readers")
    schedule(feeds, named)
    feeds.sql("UPDATE schedules SET file_ids = '{}'")
    with feeds.begin() as connection:
        connection.execute(text(migration.NAMED))
    (found,) = feeds.sql("SELECT file_ids FROM schedules")
    assert sorted(found.file_ids) == sorted(named.values())
