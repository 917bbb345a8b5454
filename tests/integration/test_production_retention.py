"""What the cleaner and tenants' policies do to productions, and what they leave alone."""

from __future__ import annotations

from sqlalchemy import text

from shared.retention import parse_retention
from tests.integration.production_case import PLAIN, Press, press_fixture
from tests.integration.retention_case import let_pass
from tests.integration.test_productions import check_sums
from worker.upkeep.cleaner import Cleaner
from worker.upkeep.retention import Retention

__all__ = ["press_fixture"]


def clean(press: Press, days: str = "") -> None:
    Retention(press.engine, press.services.store, parse_retention(days)).run()
    Cleaner(press.engine, press.services.store).run()


def pass_days(press: Press, days: float) -> None:
    with press.begin() as connection:
        connection.execute(text("UPDATE events SET announced = true"))
        let_pass(connection, days)


def test_answers_stay_for_as_long_as_their_production_has_not_read_them(press: Press) -> None:
    """Everything stopped when its batch had ended, and came back the next day."""
    production_id = press.submit_production(PLAIN)
    while not any(one["status"] == "completed" for one in press.batches_of(production_id)):
        assert press.work()

    pass_days(press, 1)
    clean(press)
    press.run()

    assert press.see(production_id)["status"] == "succeeded"
    check_sums(press, production_id)


def test_an_output_is_kept_as_outputs_are(press: Press) -> None:
    production_id = press.submit_production(PLAIN, output_expires_after=None)
    press.run()
    pass_days(press, 8)

    clean(press, "input_files=7")
    clean(press, "input_files=7")
    assert len(press.lines(production_id)) == 3

    clean(press, "outputs=7")
    clean(press, "outputs=7")
    assert press.get(f"/v1/productions/{production_id}/output").status_code == 404


def test_batches_are_shown_to_nobody_when_their_production_is_archived(press: Press) -> None:
    production_id = press.submit_production(PLAIN)
    press.run()
    assert len(press.batches_of(production_id)) == 1
    pass_days(press, 8)
    clean(press, "jobs=7")  # clean
    clean(press, "jobs=7")  # hidden
    pass_days(press, 1)
    clean(press, "jobs=7")  # gone

    assert press.get(f"/v1/productions/{production_id}").status_code == 404
    assert press.get("/v1/batches").json["data"] == []
    listed = press.get("/v1/archived_jobs").json["data"]
    assert [one["id"] for one in listed] == [production_id]
