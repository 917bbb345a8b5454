"""A tenant is erased while a plant works for it, and while its processes are killed."""

from __future__ import annotations

import contextlib
from pathlib import Path

import httpx2
from sqlalchemy import create_engine

from tests.integration.retention_case import objects_below, rows_that_mention
from tests.plant import Plant, chat_row, plant, wait_until

SETTINGS = {"DELETION_GRACE_SECONDS": "3"}
PATIENCE_SECONDS = 150.0


def test_an_erased_tenant_is_gone_though_workers_and_upkeep_were_killed(
    tmp_path: Path, database_url: str
) -> None:
    with plant(tmp_path, database_url, settings=SETTINGS) as running:
        running.start(workers=1, pools="text")
        mine = running.api_key
        theirs = running.new_tenant("second")
        running.api_key = running.new_key(theirs)
        ended = running.submit_batch([chat_row(n, "their words") for n in range(40)])
        running.wait_batch(ended)
        open_batch = running.submit_batch(
            [chat_row(n, "their words", model="fake-slow") for n in range(2_000)]
        )
        # Killed with slices of theirs in hand, and nobody has noticed when it begins.
        wait_until(lambda: has_running(running, open_batch), PATIENCE_SECONDS)
        running.processes["worker-0"].kill()
        path = running.admin("DELETE", f"/v1/admin/tenants/{theirs}")["id"]
        path = f"/v1/admin/deletions/{path}"
        running.restart("worker-0")
        wait_until(lambda: len(running.admin("GET", path)["rows"]) > 0, PATIENCE_SECONDS)
        running.processes["upkeep"].kill()
        running.restart("upkeep")
        wait_until(
            lambda: running.admin("GET", path)["status"] == "complete",
            PATIENCE_SECONDS,
            running.processes["upkeep"].log,
        )
        check_gone(running, database_url, theirs, [ended, open_batch, "their words"])
        refused = running.http().get("/v1/models")
        assert refused.status_code == 401
        running.api_key = mine
        assert running.wait_batch(running.submit_batch([chat_row(1)])).status == "completed"


def has_running(running: Plant, job_id: str) -> bool:
    with contextlib.suppress(httpx2.HTTPError):
        return bool(
            running.scalar(
                "SELECT count(*) FROM shards WHERE job_id = :job AND state = 'running'"
                " AND stage = 'generate'",
                job=job_id,
            )
        )
    return False


def check_gone(running: Plant, database_url: str, tenant_id: str, words: list[str]) -> None:
    assert objects_below(store_of(running), tenant_id) == []
    engine = create_engine(database_url)
    with engine.connect() as connection:
        assert rows_that_mention(connection, tenant_id, *words) == {}
    engine.dispose()


def store_of(running: Plant) -> Path:
    return running.folder / "artifacts"
