"""Productions that do not run to their end: bad data, cancels, lost batches, dead workers."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from api.production_objects import ProductionPreview
from shared import lifecycle
from shared.lifecycle import Claim
from shared.lifecycle.webhooks import announce_ends
from tests.integration.api_case import ADMIN, MODEL
from tests.integration.production_case import PRODUCTIONS, TABLE, Asked, Press, press_fixture
from tests.integration.test_productions import PLAIN, check_sums, headed
from worker.upkeep.cleaner import Cleaner

__all__ = ["press_fixture"]

CHAIN = headed("steps: [{name: draft, prompt: 'Draft {{ name }}'}]", "Polish {{ draft }}")


def body_of(press: Press, **changed: Any) -> dict[str, Any]:
    return {"template": PLAIN, "data_file_id": press.data(), "model": MODEL} | changed


def batches_of(press: Press, production_id: str) -> list[dict[str, Any]]:
    """Oldest first."""
    page = press.get(f"/v1/batches?production={production_id}&limit=100").json
    return list(reversed(page["data"]))


# --- data -----------------------------------------------------------------------------------------


def test_every_bad_row_is_named(press: Press) -> None:
    data = b"name,colour\nchair,red\ntable\nlamp,green,big\nbed,\xff\n"
    production_id = press.submit_production(PLAIN, data)
    press.run()

    seen = press.see(production_id)
    assert (seen["status"], seen["error"]["code"]) == ("failed", "invalid_input_file")
    assert "3 bad rows" in seen["error"]["message"]
    assert [(one["line"], one["code"]) for one in seen["error"]["lines"]] == [
        (3, "invalid_row"),
        (4, "invalid_row"),
        (5, "invalid_encoding"),
    ]
    assert not press.asked


@pytest.mark.parametrize(
    ("data", "code", "words"),
    [
        (b"name,size\nchair,big\n", "invalid_request", "no column 'colour'"),
        (b"name,colour,status\nchair,red,x\n", "invalid_request", "clash"),
        (b"name,colour\n", "empty_file", "no rows"),
        (b"", "empty_file", "empty"),
    ],
)
def test_a_table_that_does_not_fit(press: Press, data: bytes, code: str, words: str) -> None:
    production_id = press.submit_production(PLAIN, data)
    press.run()

    error = press.see(production_id)["error"]
    assert error["code"] == code
    assert words in error["message"]


def test_too_many_candidates_are_refused_by_name(press: Press) -> None:
    """As many as a batch may have rows: 100,000 here."""
    data = b"name,colour\n" + b"chair,red\n" * 6_251
    production_id = press.submit_production(PLAIN, data, n=16)
    press.run()

    error = press.see(production_id)["error"]
    assert (error["code"], error["param"]) == ("too_many_candidates", "n")


@pytest.mark.parametrize(
    ("changed", "status", "param"),
    [
        ({"n": 17}, 400, "n"),
        ({"template": "{{ name "}, 400, "template.body"),
        ({"template": headed("retries: 6")}, 400, "template.retries"),
        ({"template": headed("colour: red")}, 400, "template.colour"),
        ({"template": headed("documents: {files: [a], query: x}")}, 400, "template.documents"),
        ({"template": headed("best_of: {rule: first}")}, 400, "template.best_of"),
        ({"model": "nobody"}, 404, "model"),
        ({"model": None}, 400, "model"),
        ({"data_file_id": "file-nothing"}, 404, "data_file_id"),
        ({"output_format": "xml"}, 400, "output_format"),
        ({"priority": 10}, 400, "priority"),
        ({"sampling": {"temperature": 3}}, 400, "sampling.temperature"),
    ],
)
def test_what_is_refused_at_once(
    press: Press, changed: dict[str, Any], status: int, param: str
) -> None:
    for path in (PRODUCTIONS, f"{PRODUCTIONS}/preview"):
        if "priority" in changed and path != PRODUCTIONS:
            continue
        reply = press.post(path, body_of(press, **changed))

        assert (reply.status_code, reply.json["error"]["param"]) == (status, param), reply.json


def test_a_dry_run_says_what_it_would_take(press: Press) -> None:
    production_id = press.submit_production(PLAIN, n=4, dry_run=True)
    press.run()

    seen = press.see(production_id)
    assert seen["status"] == "succeeded", seen
    assert (seen["estimate"]["rows"], seen["lines"], seen["summary"]) == (12, 12, None)
    assert press.get(f"{PRODUCTIONS}/{production_id}/output").status_code == 404
    assert not press.asked


def test_a_preview_renders_the_first_rows_and_accepts_nothing(press: Press) -> None:
    about = {"template": CHAIN, "rows": 2, "n": 3}
    reply = press.post(f"{PRODUCTIONS}/preview", body_of(press) | about)

    assert reply.status_code == 200, reply.json
    assert [item["row"] for item in reply.json["data"]] == [1, 2]
    assert reply.json["data"][0]["prompts"] == [
        {"step": "draft", "messages": [{"role": "user", "content": "Draft chair"}]},
        {"step": None, "messages": [{"role": "user", "content": "Polish [draft]"}]},
    ]
    assert reply.json["candidates"] == 3
    ProductionPreview.model_validate(reply.json, strict=True)
    assert press.get(PRODUCTIONS).json["data"] == []


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


def test_cancelled_while_its_batch_waits(press: Press) -> None:
    """What its second round was to make better is told as the first left it."""
    template = headed("gates: {required: ['{{ name }}']}\nretries: 2")
    production_id = press.submit_production(template)

    def writer(asked: Asked) -> str:
        return "nothing" if asked.place[0] == 2 else asked.prompt

    while len(batches_of(press, production_id)) < 2:
        assert press.work(writer)
    assert cancel(press, production_id) == 202
    press.run(writer)

    seen = press.see(production_id)
    assert seen["status"] == "cancelled"
    assert seen["error"] is None
    lines = press.lines(production_id)
    assert [line["status"] for line in lines] == ["succeeded", "rejected", "succeeded"]
    assert [one["status"] for one in batches_of(press, production_id)] == ["completed", "cancelled"]
    check_sums(press, production_id)


def test_a_batch_that_somebody_cancels_ends_its_production(press: Press) -> None:
    production_id = press.submit_production(CHAIN)
    while not batches_of(press, production_id):
        assert press.work()
    (batch,) = batches_of(press, production_id)

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
    while len(batches_of(press, production_id)) < 2:
        assert press.work()
    with press.begin() as connection:
        connection.exec_driver_sql("UPDATE jobs SET expires_at = clock_timestamp() WHERE kind IN"
                                   " ('production', 'batch')")  # fmt: skip
        assert lifecycle.expire_overdue(connection)
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
        assert lifecycle.declare_dead(connection, [session])
        assert lifecycle.recover_lost(connection) == ["upkeep"]


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

    assert len(batches_of(press, production_id)) == 1
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
    assert len(batches_of(press, production_id)) == 2
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
    body, key = body_of(press), {"Idempotency-Key": "once"}

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
    (batch,) = batches_of(press, production_id)

    refused = press.delete(f"/v1/jobs/{batch['id']}")
    assert (refused.status_code, production_id in refused.text) == (409, True)
    assert press.delete(f"/v1/jobs/{production_id}").status_code < 300

    assert press.get(f"{PRODUCTIONS}/{production_id}").status_code == 404
    assert press.get(f"/v1/batches/{batch['id']}").status_code == 404
    assert press.get("/v1/batches").json["data"] == []


@pytest.mark.parametrize(
    "changed",
    [
        {"template": "half a sign \ud800"},
        {"template": "---\nsystem: half a sign \ud800\n---\n{{ name }}"},
        {"template": "a NUL \0"},
        {"template": "\ufeff---\n---\n"},
        {"template": "---\nschema: {pattern: '(a+)+$', type: string, x: \ud800}\n---\nx"},
        {"model": "\ud800"},
        {"model": "\0"},
        {"data_file_id": "\0"},
        {"metadata": {"\ud800": "\0"}},
    ],
    ids=itertools.count(),
)
def test_odd_texts_are_no_server_error(press: Press, changed: dict[str, Any]) -> None:
    for path in (PRODUCTIONS, f"{PRODUCTIONS}/preview"):
        reply = press.post(path, body_of(press, **changed))

        assert reply.status_code in {200, 202, 400, 404}, reply.json
    press.run()
    ended = [one["status"] for one in press.get(PRODUCTIONS).json["data"]]
    assert set(ended) <= {"succeeded"}


def test_a_quota_ends_it_with_what_there_is_and_is_named(press: Press) -> None:
    """Its first batch fits, and the second does not any more."""
    production_id = press.submit_production(CHAIN)
    while len(batches_of(press, production_id)) < 2:
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
