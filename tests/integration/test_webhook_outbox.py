"""Whatever ends a job, its webhooks are made: once, of the right type, and for the right tenant."""

from __future__ import annotations

import ast
import json
import re
import threading
from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import create_engine, text

from shared.db.migrate import upgrade
from shared.lifecycle import BadLine, working
from shared.lifecycle.settle import MAX_CRASHES, MAX_ERRORS, MAX_LOSSES
from shared.lifecycle.webhooks import announce_ends
from shared.lifecycle.working import ReleaseReason
from shared.states import ShardState, StopReason
from shared.translation import responses
from shared.webhook_events import end_told, event_type
from tests.architecture.test_states import LIFECYCLE
from tests.integration import graphs
from tests.integration.protocol import OTHER, TENANT
from tests.integration.tuning_case import TuningPlant
from tests.integration.webhook_case import (
    announce,
    attach,
    deliveries,
    emptied_database_fixture,
    ended,
    endpoint,
    module_database_fixture,
    told,
)

__all__ = ["emptied_database_fixture", "module_database_fixture"]


@pytest.fixture
def plant(emptied_database_url: str) -> Iterator[TuningPlant]:
    made = TuningPlant(emptied_database_url)
    made.session("w1", pools=["text", "upkeep"])
    yield made
    made.close()


# --- every way in which a job can end ---------------------------------------------------------


def finished(plant: TuningPlant) -> str:
    job = plant.generation()
    assert plant.finish("w1", plant.claim_one().held)
    return job


def failed(plant: TuningPlant) -> str:
    job = plant.generation()
    why = {"error_code": "invalid_request", "error_message": "no"}
    assert plant.finish("w1", plant.claim_one().held, state=ShardState.FAILED, **why)
    return job


def stopped_while_it_ran(plant: TuningPlant) -> str:
    job = plant.generation()
    claim = plant.claim_one()
    assert plant.stop(job)
    assert plant.finish("w1", claim.held, state=ShardState.CANCELLED)
    return job


def stopped_while_it_waited(plant: TuningPlant) -> str:
    job = plant.generation()
    assert plant.stop(job)
    return job


def expired(plant: TuningPlant) -> str:
    job = plant.generation(expires_in=1e-6)
    assert plant.expire_overdue() == 1
    return job


def given_back_after_a_stop(plant: TuningPlant) -> str:
    job = plant.generation()
    claim = plant.claim_one()
    assert plant.stop(job)
    assert plant.release("w1", claim.held, ReleaseReason.PREEMPTED) == ShardState.CANCELLED
    return job


def dead_lettered(plant: TuningPlant, reason: ReleaseReason, times: int) -> str:
    job = plant.generation()
    for _ in range(times):
        plant.release("w1", plant.claim_one().held, reason, code="c", message="m")
    return job


def crashed(plant: TuningPlant) -> str:
    return dead_lettered(plant, ReleaseReason.CRASHED, MAX_CRASHES)


def erred(plant: TuningPlant) -> str:
    return dead_lettered(plant, ReleaseReason.ERROR, MAX_ERRORS)


def reaped(plant: TuningPlant) -> str:
    job = plant.generation()
    for number in range(MAX_LOSSES):
        plant.session(f"lost-{number}")
        plant.claim_one(f"lost-{number}")
        plant.lose(f"lost-{number}")
    return job


def swept(plant: TuningPlant) -> str:
    job = plant.generation()
    with plant.engine.begin() as holder:
        holder.exec_driver_sql("SELECT 1 FROM shards FOR UPDATE")
        assert plant.stop(job)  # its shard is in somebody's hands
    assert plant.sweep() == 1
    return job


def rejected(plant: TuningPlant) -> str:
    job = plant.batch()
    claim = plant.claim_one(pools=["upkeep"])
    with plant.engine.begin() as connection:
        assert working.reject_batch(
            connection, "w1", claim.held, errors=[BadLine("x", "y")], bad_lines=1
        )
    return job


def assembled(plant: TuningPlant) -> str:
    job = plant.generating(1)
    plant.finish_slice("w1", plant.claim_one(pools=["text"]))
    assert plant.finish_assembly("w1", plant.claim_one(pools=["upkeep"]).held)
    return job


def assembled_after_a_stop(plant: TuningPlant) -> str:
    job = plant.generating(1)
    assert plant.stop(job)
    assert plant.finish_assembly("w1", plant.claim_one(pools=["upkeep"]).held)
    return job


def assembled_after_its_deadline(plant: TuningPlant) -> str:
    job = plant.generating(1)
    assert plant.stop(job, reason=StopReason.EXPIRED)
    assert plant.finish_assembly("w1", plant.claim_one(pools=["upkeep"]).held)
    return job


def never_assembled(plant: TuningPlant) -> str:
    job = plant.generating(1)
    plant.finish_slice("w1", plant.claim_one(pools=["text"]))
    for _ in range(MAX_ERRORS):
        plant.release("w1", plant.claim_one(pools=["upkeep"]).held, ReleaseReason.ERROR)
    return job


def never_validated(plant: TuningPlant) -> str:
    job = plant.batch()
    assert plant.stop(job)
    return job


def trained(plant: TuningPlant) -> str:
    job, claim = plant.training()
    assert plant.finish_training(claim)
    return job


def training_failed(plant: TuningPlant) -> str:
    job, claim = plant.training()
    with plant.engine.begin() as connection:
        assert working.fail_training(connection, "trainer", claim.held, code="c", message="m")
    return job


def training_rejected(plant: TuningPlant) -> str:
    job = plant.fine_tune()
    assert plant.reject(plant.claim_one("up", pools=["upkeep"]).held, [BadLine("x", "y", 1)])
    return job


def training_stopped_at_the_door(plant: TuningPlant) -> str:
    job = plant.fine_tune()
    claim = plant.claim_one("up", pools=["upkeep"])
    assert plant.stop(job)
    assert plant.open_training(claim.held)
    return job


def training_lost(plant: TuningPlant) -> str:
    job = plant.validated()
    for number in range(MAX_LOSSES):
        plant.session(f"lost-{number}", pools=["train"])
        plant.claim_training(f"lost-{number}")
        plant.lose(f"lost-{number}")
    return job


def dry_run(plant: TuningPlant) -> str:
    job = plant.fine_tune(dry_run=True)
    claim = plant.claim_one("up", pools=["upkeep"])
    with plant.engine.begin() as connection:
        assert working.finish_dry_run(connection, "up", claim.held, estimate={}, card=None)
    return job


def campaign_made(plant: TuningPlant) -> str:
    job = graphs.submit(plant)
    plant.session("g", pools=graphs.POOLS)
    graphs.run_steps(plant, "g")
    return job


def campaign_failed(plant: TuningPlant) -> str:
    job = graphs.submit(plant)
    plant.session("g", pools=graphs.POOLS)
    assert graphs.fail(plant, graphs.take(plant, "g")["copy"], "g")
    return job


def campaign_stopped(plant: TuningPlant) -> str:
    job = graphs.submit(plant)
    assert plant.stop(job)
    return job


def campaign_expired(plant: TuningPlant) -> str:
    job = graphs.submit(plant, expires_in=1e-6)
    assert plant.expire_overdue() == 1
    return job


ENDINGS: tuple[Callable[[TuningPlant], str], ...] = (
    finished, failed, stopped_while_it_ran, stopped_while_it_waited, expired,
    given_back_after_a_stop, crashed, erred, reaped, swept, rejected, assembled,
    assembled_after_a_stop, assembled_after_its_deadline, never_assembled, never_validated,
    trained, training_failed, training_rejected, training_stopped_at_the_door, training_lost,
    dry_run, campaign_made, campaign_failed, campaign_stopped, campaign_expired,
)  # fmt: skip


@pytest.mark.parametrize("ending", ENDINGS, ids=lambda ending: ending.__name__)
def test_each_ending_is_told_once_as_what_it_is(
    plant: TuningPlant, ending: Callable[[TuningPlant], str]
) -> None:
    endpoint(plant)
    endpoint(plant, tenant=OTHER)
    job_id = ending(plant)
    job = plant.job(job_id)
    assert job.ended_at is not None
    announce(plant)
    assert told(plant) == [(job_id, event_type(job.kind, job.state))]
    [made] = deliveries(plant)
    assert made.tenant_id == TENANT
    assert made.event_at >= job.created_at
    assert announce(plant) == (0, 0)


@pytest.mark.parametrize(
    ("kind", "reason", "kind_told"),
    [
        ("response", "length", "response.incomplete"),
        ("response", "stop", "response.completed"),
        ("generate", "length", "job.succeeded"),
    ],
)
def test_an_answer_that_was_cut_is_told_as_such(
    plant: TuningPlant, kind: str, reason: str, kind_told: str
) -> None:
    """Whatever the model said, were it NUL or how such an answer looks."""
    said = '\x00 {"completed_at":null,"status":"incomplete"'
    chat = {
        "created": 1_800_000_000,
        "model": "m",
        "choices": [{"message": {"content": said}, "finish_reason": reason}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7},
    }
    endpoint(plant)
    job_id = plant.generation()
    plant.sql(f"UPDATE jobs SET kind = '{kind}'")
    answer = responses.answered(job_id, created_at=1, asked={}, chat=chat)
    result = json.dumps(answer, separators=(",", ":"))
    assert plant.finish("w1", plant.claim_one().held, result=result)
    announce(plant)
    assert told(plant) == [(job_id, kind_told)]


SILENT = {"uploads.py"}
"""The joins of uploads are no jobs that a tenant sees: the upload's own answer tells."""


def test_no_statement_ends_a_job_and_keeps_silent() -> None:
    """Kinds of jobs to come, too: what ends one writes its event in the same breath."""
    checked = 0
    for path in sorted(LIFECYCLE.glob("*.py")):
        if path.name in SILENT:
            continue
        source = path.read_text()
        for statement in statements(ast.parse(source)):
            if ends_a_job(statement):
                checked += 1
                tells = "INSERT INTO events" in statement or "announce(" in source
                assert tells, f"{path.name}: {statement}"
    assert checked >= 8


def statements(tree: ast.AST) -> Iterator[str]:
    """Every text, whole; what an f-string fills in is left out."""
    nodes = list(ast.walk(tree))
    parts = {part for node in nodes if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in nodes:
        if isinstance(node, ast.JoinedStr):
            yield "".join(str(getattr(part, "value", "")) for part in node.values)
        elif isinstance(node, ast.Constant) and node not in parts:
            yield str(node.value)


def ends_a_job(statement: str) -> bool:
    update = re.search(r"UPDATE jobs\b(.*?)(?:\bWHERE\b|\bFROM\b)", statement, re.DOTALL)
    return update is not None and "ended_at =" in update[1]


# --- exactly once -----------------------------------------------------------------------------


def test_many_senders_at_once_make_each_delivery_once(plant: TuningPlant) -> None:
    endpoint(plant)
    jobs = ended(plant, 60)
    together = threading.Barrier(6)
    made: list[int] = []

    def run() -> None:
        together.wait()
        for _ in range(20):
            made.append(announce(plant, limit=7)[1])

    threads = [threading.Thread(target=run) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    while announce(plant) != (0, 0):
        pass
    assert sorted(job for job, _ in told(plant)) == sorted(jobs)
    ids = [row.event_id for row in deliveries(plant)]
    assert len(set(ids)) == len(ids)


def test_a_sender_that_dies_half_way_has_made_none(plant: TuningPlant) -> None:
    endpoint(plant)
    [job] = ended(plant, 1)
    connection = plant.engine.connect()
    transaction = connection.begin()
    assert announce_ends(connection) == (1, 1)
    assert announce(plant) == (0, 0)  # it is in somebody's hands
    transaction.rollback()
    connection.close()
    assert announce(plant) == (1, 1)
    assert told(plant) == [(job, "job.cancelled")]


def test_each_endpoint_gets_what_it_asked_for_with_one_id(plant: TuningPlant) -> None:
    everything, other = endpoint(plant), endpoint(plant)
    endpoint(plant, types=["job.failed"])
    endpoint(plant, tenant=OTHER)
    ended(plant, 1)
    assert announce(plant) == (1, 2)
    rows = deliveries(plant)
    assert {row.endpoint_id for row in rows} == {everything, other}
    assert len({row.event_id for row in rows}) == 1
    assert {row.circuit for row in rows} == {everything, other}


def test_nobody_listens(plant: TuningPlant) -> None:
    ended(plant, 3)
    assert announce(plant, limit=2) == (2, 0)
    assert announce(plant, limit=2) == (1, 0)
    endpoint(plant)
    assert announce(plant) == (0, 0)  # it was not there then
    assert deliveries(plant) == []


def test_a_jobs_own_webhook(plant: TuningPlant) -> None:
    jobs = [plant.generation() for _ in range(3)]
    attach(plant, jobs[0], "https://a.example.com/x?job=0")
    attach(plant, jobs[1], "https://a.example.com/y", events=("job.failed",))
    for job in jobs:
        plant.stop(job)
    announce(plant)
    [row] = deliveries(plant)
    assert (row.about, row.url) == (jobs[0], "https://a.example.com/x?job=0")
    assert (row.endpoint_id, row.circuit) == (None, f"{TENANT} https://a.example.com")


def test_other_events_stay_where_they_are(plant: TuningPlant) -> None:
    endpoint(plant)
    job = plant.generating(1)
    assert plant.events(job) == ["batch.in_progress"]
    assert announce(plant) == (0, 0)
    assert plant.scalar("SELECT count(*) FROM events WHERE announced") == 0
    plant.sql(
        "INSERT INTO events (tenant_id, job_id, type) VALUES (:tenant, :job, 'trial.failed')",
        tenant=TENANT,
        job=job,
    )
    assert end_told("batch", "trial.failed") is None
    assert announce(plant) == (1, 0)
    assert deliveries(plant) == []


def test_events_from_before_the_migration_are_not_told(empty_database_url: str) -> None:
    upgrade(empty_database_url, "0008")
    engine = create_engine(empty_database_url)
    tell = text("INSERT INTO events (tenant_id, job_id, type) VALUES ('t', 'j', 'job.failed')")
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO tenants (id, name) VALUES ('t', 't')"))
        connection.execute(
            text(
                "INSERT INTO jobs (id, tenant_id, kind, state, stage, endpoint, spec)"
                " VALUES ('j', 't', 'generate', 'failed', 'generate', 'e', '{}')"
            )
        )
        connection.execute(tell)
    upgrade(empty_database_url, "0009")
    with engine.begin() as connection:
        connection.execute(tell)
        announced = connection.execute(text("SELECT announced FROM events ORDER BY id")).scalars()
        assert list(announced) == [True, False]
    engine.dispose()
