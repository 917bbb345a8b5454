"""Usage is what the results say, to the token, whoever was killed and whatever was sent twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import httpx2
import pytest

from shared.models_catalog import ModelEntry, Price
from tests.acceptance.usage_case import (
    BATCH_ROWS,
    CHAT,
    COMPLETION,
    PATIENCE_SECONDS,
    PRICES,
    Used,
    Watch,
    added,
    call,
    code_of,
    send_twice,
    start_batch,
    summed,
    usage,
)
from tests.plant import Plant, plant, wait_until

QUEUED_ROWS = 60
CALLS = 30
"""Ten more than there is room for beside the batch."""
AFFORDABLE = 3
TERMINAL = {"succeeded", "failed", "cancelled", "expired"}
RUNNING_ROWS = """
SELECT coalesce(sum(row_count), 0) FROM shards
 WHERE tenant_id = :tenant AND stage = 'generate' AND state = 'running'"""


@pytest.fixture(scope="module")
def shared_plant(
    tmp_path_factory: pytest.TempPathFactory, database_template: str, postgres_server: Any
) -> Iterator[Plant]:
    """One for both tests: what is counted is a tenant's, and each has its own."""
    name = "usage_adds_up"
    with postgres_server.connect() as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {database_template}")
    folder = tmp_path_factory.mktemp("usage adds up")
    models = [
        ModelEntry(
            id=name,
            engine="fake",
            settings={"scratch": str(folder)},
            price=Price(input_per_million=read, output_per_million=written),
        )
        for name, (read, written) in PRICES.items()
    ]
    settings = {"POLL_SECONDS": "0.1"}
    url = postgres_server.url_of(name)
    with plant(folder, url, models=models, settings=settings) as made:
        yield made.start(workers=1, pools="text")


@pytest.fixture
def tenant(shared_plant: Plant, request: pytest.FixtureRequest) -> str:
    """The one that the plant's clients are of from now on."""
    made = shared_plant.new_tenant(request.node.name)
    shared_plant.api_key = shared_plant.new_key(made)
    return made


@pytest.fixture
def running(shared_plant: Plant, tenant: str) -> Plant:
    return shared_plant


def said_by_batch(running: Plant, batch_id: str, failing: dict[str, str]) -> Used:
    """What its lines say, each once; those in ``failing`` have these codes."""
    batch = running.wait_batch(batch_id, PATIENCE_SECONDS)
    assert batch.status == "completed"
    results = running.results(batch)
    assert set(results) == {f"row-{n}" for n in range(BATCH_ROWS)}
    bad = {name: row for name, row in results.items() if name in failing}
    assert {name: code_of(row) for name, row in bad.items()} == failing
    good = [row["response"] for name, row in results.items() if name not in failing]
    assert {response["status_code"] for response in good} == {200}
    used = summed("fake", [response["body"]["usage"] for response in good])
    assert batch.usage is not None
    told = (batch.usage.input_tokens, batch.usage.output_tokens)
    assert told == (used.input_tokens, used.output_tokens)
    return used


def said_by_jobs(running: Plant, job_ids: Sequence[str]) -> dict[tuple[str, str], Used]:
    """What the results say, by endpoint and model, once all have ended; none failed."""
    told: dict[tuple[str, str], list[dict[str, int]]] = {}
    with running.http() as http:
        for job_id in job_ids:
            path = f"/v1/jobs/{job_id}"
            wait_until(lambda p=path: http.get(p).json()["state"] in TERMINAL, PATIENCE_SECONDS)  # type: ignore[misc]
            job = http.get(path).json()
            assert job["state"] == "succeeded", job
            told.setdefault((job["endpoint"], job["model"]), []).append(job["result"]["usage"])
    return {group: summed(group[1], usages) for group, usages in told.items()}


def held(running: Plant) -> dict[str, Any]:
    with running.http() as http:
        return dict(http.get("/v1/limits").json()["held"])


def restart(running: Plant, *names: str) -> None:
    """``kill -9``, all of them before the first comes back."""
    for name in names:
        running.processes[name].kill()
    for name in names:
        running.restart(name)


def limit(running: Plant, tenant: str, **limits: int) -> None:
    running.admin("PATCH", f"/v1/admin/tenants/{tenant}", {"limits": limits})


def wait_running(running: Plant, tenant: str, rows: int) -> None:
    wait_until(lambda: running.scalar(RUNNING_ROWS, tenant=tenant) == rows, PATIENCE_SECONDS)


def say(running: Plant, word: str) -> None:
    """Lets those go that hold until it is said."""
    (running.folder / f"hold-{word}").touch()


def overfill(running: Plant, tenant: str) -> tuple[str, list[str]]:
    """A batch and more calls than there is room for, all of which wait for a word; whoever holds
    them is killed. The batch's id, and those of all calls, which were sent until they fit."""
    directives = {7: "[[error 400 too_rude]]", 9: "[[hold one]] [[crash-once batch]]"}
    batch_id = start_batch(running, CHAT, directives, "[[hold one]]")
    wait_running(running, tenant, BATCH_ROWS)
    calls = {f"call-{number}": call(number, "[[hold one]]") for number in range(CALLS)}
    first = send_twice(running, calls)
    room = QUEUED_ROWS - BATCH_ROWS
    statuses = Counter(answer.status < httpx2.codes.BAD_REQUEST for answer in first.values())
    assert statuses == {True: room, False: CALLS - room}
    refused = {key for key, answer in first.items() if "id" not in answer.body}
    assert {first[key].status for key in refused} == {httpx2.codes.TOO_MANY_REQUESTS}
    assert {first[key].body["error"]["param"] for key in refused} == {"queued_rows"}
    assert held(running)["queued_rows"] == QUEUED_ROWS
    wait_running(running, tenant, QUEUED_ROWS)
    restart(running, "worker-0", "upkeep")
    say(running, "one")
    accepted = {key: answer.body["id"] for key, answer in first.items() if key not in refused}
    while refused:
        again = send_twice(running, {key: calls[key] for key in sorted(refused)})
        accepted |= {key: answer.body["id"] for key, answer in again.items() if "id" in answer.body}
        refused -= set(accepted)
        wait_until(lambda: held(running)["queued_rows"] < QUEUED_ROWS, PATIENCE_SECONDS)
    assert len(set(accepted.values())) == CALLS
    return batch_id, sorted(accepted.values())


def check_settled(running: Plant) -> None:
    """Nothing is set aside any more."""
    now = held(running)
    assert (now["queued_rows"], now["reserved_tokens"], now["reserved_cost"]) == (0, 0, 0)


@pytest.mark.slow
def test_usage_is_what_the_results_say(running: Plant, tenant: str) -> None:
    limit(running, tenant, queued_rows=QUEUED_ROWS, daily_tokens=10**6, monthly_budget=10**9)
    with Watch(running, tenant) as watch:
        held_batch, job_ids = overfill(running, tenant)
        said = said_by_jobs(running, job_ids)
        in_chats = said_by_batch(running, held_batch, {"row-7": "too_rude"})
        bad = {3: "[[crash]]", 5: "[[error 500 went_wrong]]", 6: "[[crash-once again]]"}
        batch_id = start_batch(running, COMPLETION, bad, "plainly")
        restart(running, "upkeep", "worker-0")
        codes = {"row-3": "engine_crashed", "row-5": "went_wrong"}
        in_completions = said_by_batch(running, batch_id, codes)
    assert watch.looks > 0
    assert watch.most == QUEUED_ROWS
    said = added(said, {(CHAT, "fake"): in_chats}, {(COMPLETION, "fake"): in_completions})
    assert usage(running) == said
    check_settled(running)
    counted = "SELECT count(*) FROM usage WHERE NOT counted"
    wait_until(lambda: running.scalar(counted) == 0, PATIENCE_SECONDS)
    assert usage(running) == said


@pytest.mark.slow
def test_money_is_not_overspent_and_comes_back(running: Plant, tenant: str) -> None:
    """Whoever has money for three calls gets three, however many are sent and sent again."""
    limit(running, tenant, queued_rows=QUEUED_ROWS)
    calls = {f"call-{number}": call(0, "[[hold two]]") for number in range(2 * AFFORDABLE)}
    one = send_twice(running, {"call-0": calls["call-0"]})
    budget = AFFORDABLE * held(running)["reserved_cost"]
    limit(running, tenant, monthly_budget=budget)
    answers = one | send_twice(running, {key: calls[key] for key in list(calls)[1:]})
    ids = [answer.body["id"] for answer in answers.values() if "id" in answer.body]
    assert len(ids) == AFFORDABLE
    refused = [answer for answer in answers.values() if "id" not in answer.body]
    assert {answer.status for answer in refused} == {httpx2.codes.PAYMENT_REQUIRED}
    assert held(running)["reserved_cost"] == budget
    wait_running(running, tenant, AFFORDABLE)
    restart(running, "worker-0", "upkeep")
    say(running, "two")
    said = said_by_jobs(running, ids)
    assert usage(running) == said
    check_settled(running)
    (spent,) = said.values()
    assert 0 < spent.cost < budget
    assert held(running)["monthly_cost"] == spent.cost
