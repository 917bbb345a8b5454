"""Deletions whose carriers are killed, and those that others still write for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from sqlalchemy import text

from shared.lifecycle import deletion_work as work
from shared.storage.base import Store
from tests.integration.api_case import ADMIN
from tests.integration.media_case import MediaCase
from tests.integration.retention_case import rows_that_mention
from tests.integration.test_retention_deletions import (
    Killed,
    carry_out,
    hash_of,
    keys_below,
    media_fixture,
    picture_job,
    record,
    tenant_of,
)
from worker.upkeep.retention_deletions import Deletions

__all__ = ["media_fixture"]


def settle(media: MediaCase, seconds: float) -> None:
    """Who could write late has stopped in so many seconds, and not before."""
    with media.begin() as connection:
        connection.execute(
            text(
                "UPDATE deletions SET settles_at = clock_timestamp()"
                " + make_interval(secs => :seconds) WHERE completed_at IS NULL"
            ),
            {"seconds": seconds},
        )


def test_an_artifacts_deletion_waits_for_late_writers_too(media: MediaCase) -> None:
    job_id = picture_job(media)
    keys = keys_below(media)
    artifacts = media.get(f"/v1/jobs/{job_id}/artifacts").json["data"]
    (picture,) = [item["id"] for item in artifacts if item["role"] == "image"]
    deletion_id = media.delete(f"/v1/artifacts/{picture}").json["id"]
    settle(media, 3_600)
    carry_out(media)
    assert record(media, deletion_id)["status"] == "pending"
    assert keys_below(media) == []
    media.services.store.put_bytes(keys[0], b"late", media_type="image/png")
    settle(media, 0)
    carry_out(media)
    assert record(media, deletion_id)["status"] == "complete"
    assert keys_below(media) == []


def test_rows_of_a_job_stay_while_somebody_runs_on_for_it(media: MediaCase) -> None:
    """A step of a graph that has its outcome; whoever runs it is told to stop by these rows."""
    job_id = picture_job(media)
    running = "UPDATE shards SET state = :state WHERE job_id = :job"
    with media.begin() as connection:
        connection.execute(text(running), {"job": job_id, "state": "running"})
    deletion_id = media.delete(f"/v1/jobs/{job_id}").json["id"]
    carry_out(media)
    assert record(media, deletion_id)["status"] == "pending"
    with media.begin() as connection:
        assert rows_that_mention(connection, job_id)["shards"] == 1
        connection.execute(text(running), {"job": job_id, "state": "cancelled"})
    carry_out(media)
    assert record(media, deletion_id)["status"] == "complete"
    with media.begin() as connection:
        assert rows_that_mention(connection, job_id) == {"usage": 1}


def test_a_tenant_is_not_gone_before_late_writers_have_stopped(media: MediaCase) -> None:
    picture_job(media)
    tenant_id = tenant_of(media)
    reply = media.client.delete(f"/v1/admin/tenants/{tenant_id}", headers=ADMIN)
    path = reply.headers["Location"]
    carry_out(media, grace_seconds=3_600)
    assert media.client.get(path, headers=ADMIN).json["status"] == "pending"
    assert keys_below(media) == []
    late = f"t/{tenant_id}/j/job_x/a/0/e9/late.png"
    media.services.store.put_bytes(late, b"x", media_type="image/png")
    settle(media, 0)
    carry_out(media, grace_seconds=3_600)
    assert media.client.get(path, headers=ADMIN).json["status"] == "complete"
    assert keys_below(media) == []


def test_a_deletion_is_carried_out_by_one_at_a_time(media: MediaCase) -> None:
    file_id = media.upload().json["id"]
    assert media.delete(f"/v1/files/{file_id}").status_code == 200
    with media.begin() as connection:
        connection.execute(text("UPDATE deletions SET due_at = clock_timestamp()"))
    leased = []
    for _ in range(2):
        with media.begin() as connection:
            leased.append(work.lease_deletion(connection))
    assert leased[0] is not None
    assert leased[1] is None
    with media.begin() as connection:  # whoever has it does not come back
        connection.execute(text("UPDATE deletions SET due_at = due_at - interval '1 hour'"))
        again = work.lease_deletion(connection)
    assert again is not None
    assert again.id == leased[0].id


class LastStore:
    """Whoever removes objects with it is killed when they are gone."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def delete_keys(self, keys: Sequence[str]) -> None:
        self._store.delete_keys(keys)
        raise Killed


def test_what_was_removed_by_one_who_was_killed_then_is_in_the_record(media: MediaCase) -> None:
    job_id = picture_job(media)
    keys = keys_below(media)
    stray = f"t/{tenant_of(media)}/j/{job_id}/a/0/e7/of-a-zombie.png"
    media.services.store.put_bytes(stray, b"x", media_type="image/png")
    deletion_id = media.delete(f"/v1/jobs/{job_id}").json["id"]
    store: Any = LastStore(media.services.store)
    with pytest.raises(Killed):
        Deletions(media.engine, store, grace_seconds=0).run()
    assert keys_below(media) == []
    assert record(media, deletion_id)["status"] == "pending"
    carry_out(media)
    found = record(media, deletion_id)
    assert (found["status"], found["objects"]) == ("complete", 3)
    assert found["keys_sha256"] == hash_of([*keys, stray])
