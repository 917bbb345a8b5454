"""Deletions and policies where two things meet: an archived job whose files live, a disabled tenant
that is erased, usage that nobody has added up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import text

from shared.db.usage import count_usage
from shared.errors import StorageUnavailable
from shared.retention import parse_retention
from shared.storage.base import Store
from tests.integration.api_case import ADMIN
from tests.integration.retention_case import let_pass, rows_that_mention
from tests.integration.upkeep_case import Hall, hall_fixture, row
from worker.upkeep.cleaner import Cleaner
from worker.upkeep.retention import Retention
from worker.upkeep.retention_deletions import Deletions

__all__ = ["hall_fixture"]


def pass_days(hall: Hall, days: float) -> None:
    with hall.begin() as connection:
        connection.execute(text("UPDATE events SET announced = true"))
        let_pass(connection, days)


def clean(hall: Hall, days: str) -> dict[str, int]:
    gone = Retention(hall.engine, hall.services.store, parse_retention(days)).run()
    Cleaner(hall.engine, hall.services.store).run()
    return gone


def carry_out(hall: Hall) -> None:
    with hall.begin() as connection:
        connection.execute(text("UPDATE deletions SET due_at = clock_timestamp()"))
    Deletions(hall.engine, hall.services.store, grace_seconds=0).run()


def tenant_of(hall: Hall) -> str:
    return str(hall.get("/v1/retention").json["tenant_id"])


def change_tenant(hall: Hall, **changes: Any) -> None:
    path = f"/v1/admin/tenants/{tenant_of(hall)}"
    reply = hall.client.patch(path, json=changes, headers=ADMIN)
    assert reply.status_code == 200, reply.json


def test_an_archived_job_is_deleted_with_the_files_that_outlived_it(hall: Hall) -> None:
    batch_id = hall.ended_batch(row(1))
    output = hall.look(batch_id)["output_file_id"]
    pass_days(hall, 8)
    clean(hall, "jobs=7")
    clean(hall, "jobs=7")
    pass_days(hall, 1)
    clean(hall, "jobs=7")
    assert hall.get(f"/v1/batches/{batch_id}").status_code == 404
    assert hall.get(f"/v1/files/{output}/content").status_code == 302

    assert hall.delete(f"/v1/jobs/{batch_id}").status_code == 202
    assert hall.get(f"/v1/files/{output}").status_code == 404
    carry_out(hall)
    with hall.begin() as connection:
        assert rows_that_mention(connection, output) == {}


def test_an_archived_job_stays_while_an_open_one_reads_what_it_made(hall: Hall) -> None:
    batch_id = hall.ended_batch(row(1))
    output = hall.look(batch_id)["output_file_id"]
    pass_days(hall, 8)
    clean(hall, "jobs=7")
    clean(hall, "jobs=7")
    body = {"input_file_id": output, "endpoint": "/v1/completions", "completion_window": "24h"}
    with hall.begin() as connection:  # what it holds is no concern of this test
        connection.execute(
            text("UPDATE files SET purpose = 'batch' WHERE id = :id"), {"id": output}
        )
    assert hall.post("/v1/batches", body).status_code == 200

    assert hall.delete(f"/v1/jobs/{batch_id}").status_code == 409
    assert hall.get("/v1/archived_jobs").json["data"] != []


def test_a_disabled_tenant_can_be_erased_whatever_is_to_be_written_first(hall: Hall) -> None:
    """Its batch is being assembled, and upkeep was not to run anything of it."""
    hall.batch(row(1))
    assert hall.upkeep()
    for claim in hall.claim("text"):
        hall.end_slice(claim)
    tenant_id = tenant_of(hall)
    change_tenant(hall, disabled=True)
    assert not hall.upkeep()

    reply = hall.client.delete(f"/v1/admin/tenants/{tenant_id}?confirm={tenant_id}", headers=ADMIN)
    assert reply.status_code == 202, reply.json
    carry_out(hall)
    assert hall.upkeep()
    for _ in range(3):
        carry_out(hall)
    path = f"/v1/admin/deletions/{reply.json['id']}"
    assert hall.client.get(path, headers=ADMIN).json["status"] == "complete"


def test_usage_is_added_up_before_it_goes(hall: Hall) -> None:
    hall.ended_batch(row(1) + row(2))
    pass_days(hall, 40)

    assert "usage" not in clean(hall, "jobs=20,usage=30")
    with hall.begin() as connection:
        rows = connection.execute(text("SELECT count(*) FROM usage")).scalar_one()
        assert (rows, count_usage(connection).rows) == (1, 1)
    assert clean(hall, "jobs=20,usage=30")["usage"] == 2  # and its day
    with hall.begin() as connection:
        assert (
            rows_that_mention(connection, "/v1/completions")
            .keys()
            .isdisjoint({"usage", "usage_days"})
        )


def test_an_erased_tenant_has_consumed_what_was_added_up_too(hall: Hall) -> None:
    hall.ended_batch(row(1) + row(2))
    with hall.begin() as connection:
        assert count_usage(connection).rows == 1
        connection.execute(text("DELETE FROM usage"))  # a policy's doing
    hall.ended_batch(row(3))
    tenant_id = tenant_of(hall)
    reply = hall.client.delete(f"/v1/admin/tenants/{tenant_id}?confirm={tenant_id}", headers=ADMIN)
    for _ in range(3):
        carry_out(hall)
    path = f"/v1/admin/deletions/{reply.json['id']}"
    found = hall.client.get(path, headers=ADMIN).json
    assert (found["status"], found["usage"]["rows"]) == ("complete", 3)


class RefusingStore:
    """The store, but for one job's objects."""

    def __init__(self, store: Store, job_id: str) -> None:
        self._store = store
        self._job_id = job_id

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def delete_prefix(self, prefix: str, *, keep: Sequence[str] = ()) -> int:
        if self._job_id in prefix:
            raise StorageUnavailable("not this one")
        return self._store.delete_prefix(prefix, keep=keep)


def test_a_job_that_the_store_keeps_holds_no_other_up(hall: Hall) -> None:
    first, second = hall.ended_batch(row(1)), hall.ended_batch(row(2))
    pass_days(hall, 8)
    for _ in range(2):
        clean(hall, "jobs=7")
    pass_days(hall, 1)
    with hall.begin() as connection:  # it is the first in line
        later = "UPDATE jobs SET deleted_at = deleted_at - interval '1 day' WHERE id = :id"
        connection.execute(text(later), {"id": first})
    store: Any = RefusingStore(hall.services.store, first)

    assert Retention(hall.engine, store, {}).run() == {"hidden": 1}
    with hall.begin() as connection:
        assert "jobs" in rows_that_mention(connection, first)
        assert "jobs" not in rows_that_mention(connection, second)
    assert clean(hall, "")["hidden"] == 1
