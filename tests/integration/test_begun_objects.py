"""What a killed reader has stored is known, and goes: nothing is in the store that no row knows."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from shared.db.begun_objects import begin_object, left_objects, name_object
from tests.integration.feed_case import MONITORS, SCHEDULES, FeedCase, feeds_fixture, rss
from tests.integration.retention_case import objects_below
from worker.upkeep.cleaner import Cleaner

__all__ = ["feeds_fixture"]

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_SECONDS = 240


def work_and_be_killed(feeds: FeedCase) -> None:
    run = subprocess.run(
        [sys.executable, "-m", "tests.integration.killed_reader",
         feeds.settings.database_url, str(feeds.settings.storage_dir), feeds.server.host],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )  # fmt: skip
    assert run.returncode == -signal.SIGKILL, run.stderr


def objects(feeds: FeedCase) -> set[str]:
    folder = feeds.settings.storage_dir
    assert folder is not None
    return set(objects_below(folder, feeds.tenant_id))


def known(feeds: FeedCase) -> set[str]:
    """Keys that rows name."""
    rows = feeds.sql(
        "SELECT key FROM begun_objects"
        " UNION ALL SELECT storage_key FROM files WHERE deleted_at IS NULL"
    )
    return {row.key for row in rows}


def clean_an_hour_later(feeds: FeedCase) -> None:
    feeds.sql("UPDATE begun_objects SET begun_at = begun_at - interval '61 minutes'")
    Cleaner(feeds.engine, feeds.services.store).run()


def monitor_with_a_window_that_is_over(feeds: FeedCase) -> str:
    feeds.sql(
        "INSERT INTO models (id, pool, engine, source, endpoints)"
        " VALUES ('judge', 'text', 'fake', 'judge', '{/v1/classifications}')"
    )
    body = {"name": "n", "model": "judge", "label": "x", "limit": 0.5, "window": {"minutes": 5}}
    monitor_id = str(feeds.post(MONITORS, body).json["id"])
    assert feeds.post(f"{MONITORS}/{monitor_id}/texts", {"texts": ["a"]}).status_code == 202
    feeds.sql(
        "UPDATE monitor_windows SET starts_at = starts_at - interval '1 hour',"
        " ends_at = ends_at - interval '1 hour'"
    )
    feeds.sql("UPDATE monitors SET next_look_at = clock_timestamp()")
    return monitor_id


@pytest.mark.parametrize("whose", ["schedule", "monitor"])
def test_what_a_killed_reader_stored_is_known_and_goes(feeds: FeedCase, whose: str) -> None:
    feeds.server.body = rss("a", "b")
    if whose == "schedule":
        path = f"{SCHEDULES}/{feeds.schedule()}"
    else:
        path = f"{MONITORS}/{monitor_with_a_window_that_is_over(feeds)}"
    work_and_be_killed(feeds)
    assert len(objects(feeds)) == 1
    assert objects(feeds) == known(feeds)
    assert feeds.delete(path).status_code == 200  # nobody comes back for it
    assert objects(feeds) == known(feeds)
    Cleaner(feeds.engine, feeds.services.store).run()
    assert len(objects(feeds)) == 1  # whoever stored it may not be dead
    clean_an_hour_later(feeds)
    assert objects(feeds) == known(feeds) == set()


def test_whoever_takes_over_stores_its_own(feeds: FeedCase) -> None:
    feeds.server.body = rss("a", "b")
    feeds.schedule()
    work_and_be_killed(feeds)
    feeds.lease_ends()
    feeds.run_due()
    (data,) = feeds.sql("SELECT storage_key FROM files")
    assert objects(feeds) == {data.storage_key}
    clean_an_hour_later(feeds)
    assert objects(feeds) == known(feeds) == {data.storage_key}


def test_what_may_be_removed_at_any_time_is_not_named(feeds: FeedCase) -> None:
    """Between those who name an object and those who remove it lies half an hour."""
    for age, named, left in (("29 minutes", True, []), ("31 minutes", False, []),
                             ("61 minutes", False, ["k"])):  # fmt: skip
        with feeds.begin() as connection:
            begin_object(connection, feeds.tenant_id, "k")
        feeds.sql("UPDATE begun_objects SET begun_at = begun_at - CAST(:age AS interval)", age=age)
        with feeds.begin() as connection:
            assert left_objects(connection) == left
            assert name_object(connection, "k") == named
