"""Productions that do not run to their end: cancels, lost batches, quotas, dead workers."""

from __future__ import annotations

import pytest

from shared.lifecycle import working
from shared.lifecycle.webhooks import announce_ends
from shared.lifecycle.working import Claim
from tests.integration.api_case import ADMIN
from tests.integration.production_case import PLAIN, PRODUCTIONS, TABLE, Asked, Press, press_fixture
from tests.integration.test_productions import CHAIN, check_sums, headed
from worker.upkeep.cleaner import Cleaner

__all__ = ["press_fixture"]


# --- stops ----------------------------------------------------------------------------------------


def cancel(press: Press, production_id: str) -> int:
    return press.post(f"{PRODUCTIONS}/{production_id}/cancel").status_code


def test_cancelled_before_its_data_were_read(press: Press) -> None:
    production_id = press.submit_production(PLAIN)

    assert cancel(press, production_id) == 200
    press.run()

    assert press.see(production_id)["status"] == "cancelled"
    assert cancel(press, production_id) == 200


def test_cancelled_before_anything_was_asked(press: Press) -> None:
    production_id = press.submit_production(PLAIN)
    assert press.upkeep()

    assert cancel(press, production_id) == 202
    press.run()

    seen = press.see(production_id)
    assert (seen["status"], seen["summary"]["failed"]) == ("cancelled", 3)
    assert not press.asked
    check_sums(press, production_id)


def test_cancelled_while_somebody_works_on_it(press: Press) -> None:
    """It was claimed before; what is to be asked next is found when nothing may be asked."""
    production_id = press.submit_production(PLAIN)
    assert press.upkeep()
    (claim,) = press.claim("upkeep")
    assert cancel(press, production_id) == 202
    press.chores.begin(claim, press.me)
    press.settle()
    assert press.batches_of(production_id) == []
    press.run()
    assert press.see(production_id)["status"] == "cancelled"
    assert press.batches_of(production_id) == []


def test_cancelled_while_its_batch_waits(press: Press) -> None:
    """What its second round was to make better is told as the first left it."""
    template = headed("gates: {required: ['{{ name }}']}\nretries: 2")
    production_id = press.submit_production(template)

    def writer(asked: Asked) -> str:
        return "nothing" if asked.place[0] == 2 else asked.prompt

    while len(press.batches_of(production_id)) < 2:
        assert press.work(writer)
    assert cancel(press, production_id) == 202
    press.run(writer)

    seen = press.see(production_id)
    assert seen["status"] == "cancelled"
    assert seen["error"] is None
    lines = press.lines(production_id)
    assert [line["status"] for line in lines] == ["succeeded", "rejected", "succeeded"]
    assert [one["status"] for one in press.batches_of(production_id)] == ["completed", "cancelled"]
    check_sums(press, production_id)


def test_a_batch_that_somebody_cancels_ends_its_production(press: Press) -> None:
    production_id = press.submit_production(CHAIN)
    while not press.batches_of(production_id):
        assert press.work()
    (batch,) = press.batches_of(production_id)

    assert press.post(f"/v1/batches/{batch['id']}/cancel").status_code == 200
    press.run()

    seen = press.see(production_id)
    assert (seen["status"], seen["error"]["code"]) == ("failed", "batch_cancelled")
    assert batch["id"] in seen["error"]["message"]
    assert seen["summary"]["failed_by_code"] == {"batch_cancelled": 3}
    check_sums(press, production_id)


def test_its_deadline_keeps_what_is_done(press: Press) -> None:
    production_id = press.submit_production(
        headed("gates: {forbidden: [chair]}\nretries: 1"), expires_in_seconds=3_600
    )
    while len(press.batches_of(production_id)) < 2:
        assert press.work()
    with press.begin() as connection:
        connection.exec_driver_sql("UPDATE jobs SET expires_at = clock_timestamp() WHERE kind IN"
                                   " ('production', 'batch')")  # fmt: skip
        assert working.expire_overdue(connection)
    press.run()

    seen = press.see(production_id)
    assert seen["status"] == "expired"
    lines = press.lines(production_id)
    assert [line["status"] for line in lines] == ["rejected", "succeeded", "succeeded"]
    check_sums(press, production_id)


def test_a_cancel_that_comes_too_late_changes_nothing(press: Press) -> None:
    production_id = press.submit_production(PLAIN)
    press.run()

    assert cancel(press, production_id) == 409
    assert press.see(production_id)["status"] == "succeeded"


def test_a_quota_ends_it_with_what_there_is_and_is_named(press: Press) -> None:
    """Its first batch fits, and the second does not any more."""
    production_id = press.submit_production(CHAIN)
    while len(press.batches_of(production_id)) < 2:
        assert press.work()
    tenant = press.client.get("/v1/admin/tenants", headers=ADMIN).json["data"][0]["id"]
    limits = {"limits": {"queued_rows": 2}}
    reply = press.client.patch(f"/v1/admin/tenants/{tenant}", json=limits, headers=ADMIN)
    assert reply.status_code == 200, reply.json
    press.run()

    seen = press.see(production_id)
    assert (seen["status"], seen["error"]["code"]) == ("failed", "batch_failed")
    assert "queued_rows" in seen["error"]["message"]
    assert seen["summary"]["failed"] == 3
    check_sums(press, production_id)


# --- deaths ---------------------------------------------------------------------------------------


def lose(press: Press, claim: Claim) -> None:
    """Its worker is gone, and the reaper has seen it."""
    with press.begin() as connection:
        session = press.open_session(connection)
        connection.exec_driver_sql(
            f"UPDATE shards SET session_id = '{session}' WHERE id = {claim.shard_id}"
        )
        connection.exec_driver_sql(
            f"UPDATE sessions SET expires_at = clock_timestamp() WHERE id = '{session}'"
        )
        assert working.declare_dead(connection, [session])
        assert working.recover_lost(connection) == ["upkeep"]


@pytest.mark.parametrize("after", [0, 1, 2, 3, 4, 5, 6])
def test_a_worker_that_dies_at_any_claim_changes_nothing(press: Press, after: int) -> None:
    """Upkeep is lost with the claim number ``after``; another one does it again."""
    template = headed(
        "steps: [{name: draft, prompt: 'Draft {{ name }}'}]\n"
        "gates: {near_duplicates: 0.9}\nretries: 1",
        "Polish {{ draft }}",
    )
    production_id = press.submit_production(template, TABLE + b"chair,red\n")
    claims = 0
    for _ in range(100):
        press.passes.run()
        for claim in press.claim("upkeep"):
            if claims == after:
                lose(press, claim)
            else:
                press.chores.begin(claim, press.me)
            claims += 1
        press.settle()
        for claim in press.claim("text", 64):
            press.answer(claim, lambda asked: f"{asked.prompt} {asked.round} {asked.place[0] % 2}")
        if press.see(production_id)["status"] not in {"queued", "running"}:
            break

    assert claims > 6
    seen = press.see(production_id)
    assert seen["status"] == "succeeded", seen
    assert [(line["name"], line["status"]) for line in press.lines(production_id)] == [
        ("chair", "succeeded"),
        ("table", "succeeded"),
        ("lamp", "succeeded"),
        ("chair", "succeeded"),
    ]
    check_sums(press, production_id)


def test_a_zombie_adds_no_batch(press: Press) -> None:
    production_id = press.submit_production(PLAIN)
    assert press.upkeep()
    (claim,) = press.claim("upkeep")
    lose(press, claim)
    assert press.upkeep()

    press.chores.begin(claim, press.me)
    press.settle()

    assert len(press.batches_of(production_id)) == 1
    press.run()
    assert press.see(production_id)["summary"]["succeeded"] == 3


# --- what others see ------------------------------------------------------------------------------


def test_its_batches_are_listed_with_it_alone(press: Press) -> None:
    production_id = press.submit_production(CHAIN)
    own = press.submit_batch()
    press.run()

    assert [one["id"] for one in press.get("/v1/batches").json["data"]] == [own]
    kinds = [one["kind"] for one in press.get("/v1/jobs").json["data"]]
    assert sorted(kinds) == ["batch", "production"]
    assert len(press.batches_of(production_id)) == 2
    page = press.get("/v1/files?limit=100").json["data"]
    assert sorted(one["purpose"] for one in page) == ["batch", "production_output", "user_data"]


def test_one_end_is_announced(press: Press) -> None:
    production_id = press.submit_production(CHAIN)
    press.run()

    with press.begin() as connection:
        hook = "INSERT INTO job_webhooks (job_id, url) SELECT id, 'https://example.com' FROM jobs"
        connection.exec_driver_sql(hook)
        announce_ends(connection)
        told = connection.exec_driver_sql("SELECT about, event_type FROM webhook_deliveries").all()

    assert [tuple(row) for row in told] == [(production_id, "production.completed")]


def test_another_tenants_productions_are_not_there(press: Press) -> None:
    production_id = press.submit_production(PLAIN)
    press.run()
    press.key = press.new_tenant()

    for path in ("", "/output"):
        assert press.get(f"{PRODUCTIONS}/{production_id}{path}").status_code == 404
    assert cancel(press, production_id) == 404
    assert press.get(PRODUCTIONS).json["data"] == []
    assert press.get(f"/v1/batches?production={production_id}").json["data"] == []


def test_the_same_key_makes_one_production(press: Press) -> None:
    body, key = press.body_of(), {"Idempotency-Key": "once"}

    first = press.post(PRODUCTIONS, body, key)
    second = press.post(PRODUCTIONS, body, key)

    assert first.json["id"] == second.json["id"]
    assert press.post(PRODUCTIONS, body | {"n": 2}, key).status_code == 422


# --- what stays -----------------------------------------------------------------------------------


def stored(press: Press) -> list[str]:
    """Keys of objects of jobs."""
    folder = press.settings.storage_dir
    keys = (str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    return sorted(key for key in keys if "/j/" in key)


def test_the_cleaner_leaves_the_output_alone(press: Press) -> None:
    production_id = press.submit_production(headed("gates: {near_duplicates: 0.9}", PLAIN))
    press.run()
    assert len(stored(press)) > 4

    with press.begin() as connection:
        connection.exec_driver_sql("UPDATE jobs SET ended_at = ended_at - interval '2 hours'")
    Cleaner(press.engine, press.services.store).run()

    (kept,) = stored(press)
    assert f"/j/{production_id}/final/" in kept
    assert len(press.lines(production_id)) == 3


def test_a_production_is_deleted_with_its_batches(press: Press) -> None:
    production_id = press.submit_production(PLAIN)
    press.run()
    (batch,) = press.batches_of(production_id)

    refused = press.delete(f"/v1/jobs/{batch['id']}")
    assert (refused.status_code, production_id in refused.text) == (409, True)
    assert press.delete(f"/v1/jobs/{production_id}").status_code < 300

    assert press.get(f"{PRODUCTIONS}/{production_id}").status_code == 404
    assert press.get(f"/v1/batches/{batch['id']}").status_code == 404
    assert press.get("/v1/batches").json["data"] == []
