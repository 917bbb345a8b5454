"""Leasing deliveries, writing down what came of them, and leaving dead receivers alone."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from shared.db import webhooks
from shared.db.webhook_retention import GIVE_UP_DAYS, KEEP_DAYS, clean_webhooks
from shared.lifecycle import add_test_delivery, replay_delivery, replay_since
from shared.lifecycle.webhook_attempts import KEPT_ATTEMPTS
from shared.webhook_retries import FAILURES_TO_OPEN, MAX_ATTEMPTS
from shared.webhook_signing import new_secret
from tests.integration.protocol import OTHER, TENANT, Plant
from tests.integration.webhook_case import (
    announce,
    attach,
    claim,
    deliveries,
    emptied_database_fixture,
    ended,
    endpoint,
    fail,
    make_due,
    module_database_fixture,
    record,
)

__all__ = ["emptied_database_fixture", "module_database_fixture"]


@pytest.fixture
def plant(emptied_database_url: str) -> Iterator[Plant]:
    made = Plant(emptied_database_url)
    yield made
    made.close()


def waiting(plant: Plant, count: int, *, tenant: str = TENANT) -> str:
    """An endpoint for which so many deliveries wait."""
    made = endpoint(plant, tenant=tenant)
    ended(plant, count, tenant=tenant)
    announce(plant)
    return made


# --- leases -----------------------------------------------------------------------------------


def test_a_lease_has_what_it_takes_to_send(plant: Plant) -> None:
    endpoint_id = endpoint(plant, url="https://a.example.com/x")
    [job] = ended(plant, 1)
    announce(plant)
    [leased] = claim(plant)
    assert (leased.endpoint_id, leased.url) == (endpoint_id, "https://a.example.com/x")
    assert (leased.about, leased.event_type, leased.attempt_n) == (job, "job.cancelled", 0)
    assert leased.keys == [plant.scalar("SELECT secret FROM webhook_endpoints")]
    assert leased.event_at == int(plant.scalar("SELECT extract(epoch FROM created_at) FROM events"))
    with plant.engine.begin() as connection:
        webhooks.update_endpoint(connection, TENANT, endpoint_id, url="https://b.example.com/")
        webhooks.rotate_endpoint_secret(
            connection, TENANT, endpoint_id, secret=new_secret(), keep_old=True
        )
    make_due(plant)
    [again] = claim(plant)
    assert again.url == "https://b.example.com/"
    assert again.event_id == leased.event_id
    assert again.keys[1:] == leased.keys
    plant.sql("UPDATE webhook_endpoints SET old_secret_until = clock_timestamp()")
    make_due(plant)
    assert len(claim(plant)[0].keys) == 1


def test_a_jobs_own_webhook_is_signed_with_the_tenants_secret(plant: Plant) -> None:
    job = plant.generation()
    attach(plant, job, "https://a.example.com/x")
    plant.stop(job)
    announce(plant)
    assert claim(plant)[0].keys == []
    secrets = [new_secret(), new_secret()]
    with plant.engine.begin() as connection:
        for secret in secrets:
            webhooks.rotate_secret(connection, TENANT, secret=secret, keep_old=True)
        webhooks.rotate_secret(connection, OTHER, secret=new_secret(), keep_old=False)
    make_due(plant)
    assert claim(plant)[0].keys == secrets[::-1]


def test_what_is_leased_is_nobody_elses_until_the_lease_is_over(plant: Plant) -> None:
    waiting(plant, 3)
    mine = claim(plant, limit=2)
    assert len(mine) == 2
    [theirs] = claim(plant, "s2")
    assert theirs.id not in {item.id for item in mine}
    assert claim(plant, "s3") == []
    make_due(plant)  # s1 was killed after it had sent, and before it could write it down
    again = claim(plant, "s3")
    assert {item.event_id for item in again} == {item.event_id for item in [*mine, theirs]}
    assert record(plant, mine, "s1") == 0  # it comes back: too late, and nothing is lost
    assert record(plant, again, "s3") == 3
    assert {row.status for row in deliveries(plant)} == {"delivered"}


def test_many_senders_at_once_lease_each_delivery_once(plant: Plant) -> None:
    waiting(plant, 80)
    together = threading.Barrier(6)
    leased: list[str] = []

    def run(name: str) -> None:
        together.wait()
        for _ in range(40):
            leased.extend(item.id for item in claim(plant, name, limit=3))

    threads = [threading.Thread(target=run, args=(f"s{n}",)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    leased += [item.id for item in claim(plant, "last")]
    assert sorted(leased) == [row.id for row in deliveries(plant)]


def test_receivers_take_turns_and_each_has_its_limit(plant: Plant) -> None:
    busy, quiet = endpoint(plant), endpoint(plant, tenant=OTHER)
    ended(plant, 20)
    ended(plant, 2, tenant=OTHER)
    announce(plant)
    first = claim(plant, limit=4, each=8)
    assert sorted(item.endpoint_id or "" for item in first) == sorted([busy, busy, quiet, quiet])
    second = claim(plant, "s2", limit=99, each=8)
    assert [item.endpoint_id for item in second] == [busy] * 6  # eight under way, in all
    assert claim(plant, "s3", limit=99, each=8) == []
    record(plant, first[:1])
    assert len(claim(plant, "s3", limit=99, each=8)) == 1


def test_tenants_take_turns_however_many_receivers_each_names(plant: Plant) -> None:
    """Receivers that hang keep senders: many of one tenant must not stand before everybody."""
    for number in range(6):
        attach(plant, *ended(plant, 1), f"https://h{number}.example.org/")
    announce(plant)
    endpoint(plant, tenant=OTHER)
    ended(plant, 1, tenant=OTHER)
    announce(plant)
    first = claim(plant, limit=2, each=8)
    assert len([item for item in first if item.endpoint_id]) == 1
    assert len(claim(plant, "s2", limit=99, each=8)) == 5  # whoever is alone has all the rest


# --- what came of it --------------------------------------------------------------------------


def test_the_schedule_of_one_delivery_to_its_end(plant: Plant) -> None:
    waiting(plant, 1)
    pauses = []
    for number in range(1, MAX_ATTEMPTS + 1):
        [leased] = claim(plant)
        assert leased.attempt_n == number - 1
        assert fail(plant, [leased]) == 1
        plant.sql("DELETE FROM webhook_circuits")
        pauses.append(
            plant.scalar(
                "SELECT extract(epoch FROM next_attempt_at - clock_timestamp())"
                " FROM webhook_deliveries"
            )
        )
        make_due(plant)
    assert pauses[-1] is None
    for pause, least in zip(pauses, (5, 300, 1_800, 7_200, 28_800, 86_400), strict=False):
        assert least - 5 < pause <= 1.2 * least
    [row] = deliveries(plant)
    assert (row.status, row.error_code, row.attempt_n) == ("failed", "timeout", MAX_ATTEMPTS)
    assert row.ended_at is not None
    assert len(row.attempts) == MAX_ATTEMPTS
    assert claim(plant) == []


def test_a_receivers_wish_and_final_failures(plant: Plant) -> None:
    waiting(plant, 2)
    patient, final = claim(plant)
    fail(plant, [patient], status_code=503, retry_after=1_000.0)
    assert (
        990
        < plant.scalar(
            "SELECT extract(epoch FROM next_attempt_at - clock_timestamp()) FROM webhook_deliveries"
            " WHERE status_code = 503"
        )
        < 1_010
    )
    fail(plant, [final], final=True)
    assert sorted(row.status for row in deliveries(plant)) == ["failed", "pending"]


def test_the_latest_attempts_are_kept(plant: Plant) -> None:
    waiting(plant, 1)
    for number in range(KEPT_ATTEMPTS + 3):
        fail(plant, claim(plant), status_code=500 + number)
        plant.sql("DELETE FROM webhook_circuits")
        plant.sql("UPDATE webhook_deliveries SET status = 'pending', attempt_n = 0")
        make_due(plant)
    [row] = deliveries(plant)
    codes = [attempt["status_code"] for attempt in row.attempts]
    assert codes == [500 + number for number in range(3, KEPT_ATTEMPTS + 3)]


def test_410_ends_the_endpoint_and_what_waits_for_it(plant: Plant) -> None:
    gone = waiting(plant, 3)
    other = endpoint(plant, tenant=OTHER)
    ended(plant, 1, tenant=OTHER)
    announce(plant)
    first = next(item for item in claim(plant, limit=2) if item.endpoint_id == gone)
    record(plant, [first], status_code=410, error_code="http_410", final=True)
    assert plant.scalar(
        "SELECT disabled_reason FROM webhook_endpoints WHERE id = :id", id=gone
    ) == ("gone")
    statuses = [row.status for row in deliveries(plant) if row.endpoint_id == gone]
    assert sorted(statuses) == ["cancelled", "cancelled", "failed"]
    assert [row.status for row in deliveries(plant) if row.endpoint_id == other] == ["pending"]


# --- circuits ---------------------------------------------------------------------------------


def open_circuit(plant: Plant) -> str:
    """An endpoint that has failed often enough, with a dozen deliveries waiting."""
    made = waiting(plant, FAILURES_TO_OPEN + 12)
    fail(plant, claim(plant, limit=FAILURES_TO_OPEN))
    return made


def circuit(plant: Plant) -> tuple[int, float]:
    """Failures, and for how many seconds it stays open."""
    [row] = plant.sql(
        "SELECT failures, coalesce(extract(epoch FROM open_until - clock_timestamp()), 0)"
        " FROM webhook_circuits"
    )
    return row[0], float(row[1])


def test_a_circuit_opens_and_what_waits_loses_nothing(plant: Plant) -> None:
    open_circuit(plant)
    failures, seconds = circuit(plant)
    assert failures == FAILURES_TO_OPEN
    assert 20 < seconds <= 30
    assert claim(plant) == []
    waiting_rows = [row for row in deliveries(plant) if row.attempt_n == 0]
    assert len(waiting_rows) == 12
    assert {row.status for row in waiting_rows} == {"pending"}


def test_half_open_lets_one_probe_through_and_a_success_everything(plant: Plant) -> None:
    open_circuit(plant)
    make_due(plant)
    [probe] = claim(plant)
    assert claim(plant, "s2") == []
    fail(plant, [probe])
    failures, seconds = circuit(plant)
    assert (failures, 50 < seconds <= 60) == (FAILURES_TO_OPEN + 1, True)
    assert claim(plant) == []
    make_due(plant)
    record(plant, claim(plant))
    assert plant.scalar("SELECT count(*) FROM webhook_circuits") == 0
    make_due(plant)
    assert len(claim(plant)) == FAILURES_TO_OPEN + 12 - 1


def test_the_dead_do_not_keep_others_waiting(plant: Plant) -> None:
    open_circuit(plant)
    alive = endpoint(plant, tenant=OTHER)
    ended(plant, 3, tenant=OTHER)
    announce(plant)
    assert [item.endpoint_id for item in claim(plant)] == [alive] * 3


def test_a_success_among_failures_keeps_the_circuit_closed(plant: Plant) -> None:
    waiting(plant, 12)
    for _ in range(3):
        fail(plant, claim(plant, limit=FAILURES_TO_OPEN - 2))
        record(plant, claim(plant, limit=1))
    assert plant.scalar("SELECT count(*) FROM webhook_circuits") == 0


def test_samples_pass_an_open_circuit_and_do_not_count(plant: Plant) -> None:
    made = open_circuit(plant)
    before = circuit(plant)[0]
    with plant.engine.begin() as connection:
        sample = add_test_delivery(
            connection, tenant_id=TENANT, endpoint_id=made, kind="batch.completed"
        )
        assert sample is not None
        nobodys = add_test_delivery(
            connection, tenant_id=OTHER, endpoint_id=made, kind="batch.completed"
        )
        assert nobodys is None
    [leased] = claim(plant)
    assert (leased.id, leased.test) == (sample, True)
    fail(plant, [leased])
    assert circuit(plant)[0] == before
    [row] = [row for row in deliveries(plant) if row.id == sample]
    assert (row.status, row.attempt_n) == ("failed", 1)  # tried once
    with plant.engine.begin() as connection:
        assert not replay_delivery(connection, tenant_id=TENANT, delivery_id=sample)


# --- replay, and the end of it all ------------------------------------------------------------


def test_replaying_begins_the_schedule_anew(plant: Plant) -> None:
    made = waiting(plant, 2)
    first = claim(plant)
    fail(plant, first, final=True)
    with plant.engine.begin() as connection:
        assert not replay_delivery(connection, tenant_id=OTHER, delivery_id=first[0].id)
        assert replay_delivery(connection, tenant_id=TENANT, delivery_id=first[0].id)
        assert not replay_delivery(connection, tenant_id=TENANT, delivery_id=first[0].id)
        values = {"endpoint_id": made, "since": 0.0, "status": None}
        assert replay_since(connection, tenant_id=OTHER, **values) == 0
        assert replay_since(connection, tenant_id=TENANT, **values) == 1
    again = claim(plant)
    assert {item.event_id for item in again} == {item.event_id for item in first}
    assert {item.attempt_n for item in again} == {0}
    record(plant, again)
    assert {len(row.attempts) for row in deliveries(plant)} == {2}


def clean(plant: Plant) -> int:
    with plant.connection() as connection:
        return clean_webhooks(connection)


def age(plant: Plant, column: str, days: float) -> None:
    plant.sql(
        f"UPDATE webhook_deliveries SET {column} = clock_timestamp() - interval '{days} days'"
    )


def test_old_deliveries_are_forgotten(plant: Plant) -> None:
    waiting(plant, 2)
    record(plant, claim(plant, limit=1))
    age(plant, "ended_at", KEEP_DAYS - 1)
    plant.sql("UPDATE webhook_deliveries SET ended_at = NULL WHERE status = 'pending'")
    assert clean(plant) == 0
    age(plant, "ended_at", KEEP_DAYS + 1)
    plant.sql("UPDATE webhook_deliveries SET ended_at = NULL WHERE status = 'pending'")
    assert clean(plant) == 1
    assert [row.status for row in deliveries(plant)] == ["pending"]


def test_deliveries_to_the_dead_are_given_up_in_the_end(plant: Plant) -> None:
    open_circuit(plant)
    ended(plant, 1, tenant=OTHER)
    other = endpoint(plant, tenant=OTHER)
    ended(plant, 1, tenant=OTHER)
    announce(plant)
    make_due(plant)
    age(plant, "queued_at", GIVE_UP_DAYS - 0.1)
    assert clean(plant) == 0
    age(plant, "queued_at", GIVE_UP_DAYS + 0.1)
    assert clean(plant) == FAILURES_TO_OPEN + 12
    for row in deliveries(plant):
        # Its sender was away, its receiver not known to be: it waits on.
        expected = ("pending", None) if row.endpoint_id == other else ("failed", "too_old")
        assert (row.status, row.error_code) == expected


def test_what_was_made_while_its_endpoint_went_away_is_ended(plant: Plant) -> None:
    made = waiting(plant, 1)
    plant.sql("UPDATE webhook_endpoints SET disabled_at = clock_timestamp()")
    assert claim(plant) == []
    assert clean(plant) == 1
    assert [row.status for row in deliveries(plant)] == ["cancelled"]
    plant.sql("UPDATE webhook_endpoints SET deleted_at = clock_timestamp() WHERE id = :id", id=made)
    assert clean(plant) == 1
    assert deliveries(plant) == []
    assert plant.scalar("SELECT count(*) FROM webhook_endpoints") == 0


def test_old_secrets_are_forgotten_when_their_day_is_over(plant: Plant) -> None:
    made = endpoint(plant)
    with plant.engine.begin() as connection:
        for _ in range(2):
            webhooks.rotate_secret(connection, TENANT, secret=new_secret(), keep_old=True)
        webhooks.rotate_endpoint_secret(
            connection, TENANT, made, secret=new_secret(), keep_old=True
        )
    clean(plant)
    kept = "SELECT count(*) FROM {} WHERE old_secret IS NOT NULL"
    for table in ("webhook_endpoints", "webhook_secrets"):
        assert plant.scalar(kept.format(table)) == 1
        plant.sql(f"UPDATE {table} SET old_secret_until = clock_timestamp() - interval '1 s'")
    clean(plant)
    for table in ("webhook_endpoints", "webhook_secrets"):
        assert plant.scalar(kept.format(table)) == 0
