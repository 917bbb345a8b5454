"""Usage is what the results say, to the token, whoever was killed and whatever was sent twice."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import httpx2
import pytest

from shared.models_catalog import ModelEntry, Price
from tests.plant import Plant, plant, wait_until

CHAT, COMPLETION, EMBEDDING = "/v1/chat/completions", "/v1/completions", "/v1/embeddings"
PRICES = {"fake": (3, 7), "other": (2, 11)}
"""Of a token that is read, and of one that is written: in millionths, as costs are."""
QUEUED_ROWS = 60
BATCH_ROWS = 40
CALLS = 30
"""Ten more than there is room for beside the batch."""
AFFORDABLE = 3
MOST_TOKENS = 50
PATIENCE_SECONDS = 150.0
SENDERS = 8
UNDER_WAY = 409
TERMINAL = {"succeeded", "failed", "cancelled", "expired"}
OPEN_ROWS = """
SELECT coalesce(sum(row_count), 0) FROM shards
 WHERE tenant_id = :tenant AND stage = 'generate'
   AND state NOT IN ('succeeded', 'failed', 'cancelled', 'expired')"""
RUNNING = "SELECT coalesce(sum(row_count), 0) FROM shards WHERE stage = 'generate' AND {}"


class Used(NamedTuple):
    """What the results of some rows say, or a line of usage."""

    rows: int
    input_tokens: int
    output_tokens: int
    cost: int


class Answer(NamedTuple):
    status: int
    body: dict[str, Any]


@pytest.fixture
def running(tmp_path: Path, database_url: str) -> Iterator[Plant]:
    models = [
        ModelEntry(
            id=name,
            engine="fake",
            settings={"scratch": str(tmp_path)},
            price=Price(input_per_million=read, output_per_million=written),
        )
        for name, (read, written) in PRICES.items()
    ]
    settings = {"POLL_SECONDS": "0.1"}
    with plant(tmp_path / "plant", database_url, models=models, settings=settings) as made:
        yield made.start(workers=1, pools="text")


class Watch:
    """Looks again and again at how many rows of a tenant are open, until the block ends."""

    def __init__(self, running: Plant, tenant: str) -> None:
        self._look = lambda: int(running.scalar(OPEN_ROWS, tenant=tenant))
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.most = 0
        self.looks = 0

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(0.1):
            self.most = max(self.most, self._look())
            self.looks += 1


def send(running: Plant, path: str, body: dict[str, Any], key: str) -> Answer:
    """Until the request is not under way elsewhere."""
    headers = {"Idempotency-Key": key}
    answers: list[Answer] = []

    def answered() -> bool:
        with running.http() as http:
            reply = http.post(path, json=body, headers=headers)
        answers[:] = [Answer(reply.status_code, reply.json())]
        return reply.status_code != UNDER_WAY

    wait_until(answered, PATIENCE_SECONDS, lambda: str(answers))
    return answers[0]


def send_twice(running: Plant, bodies: dict[str, dict[str, Any]]) -> dict[str, Answer]:
    """Every call by two senders, side by side; their answers by key, which have to be the same."""
    twice = [key for key in bodies for _ in range(2)]
    with ThreadPoolExecutor(SENDERS) as pool:
        answers = list(
            pool.map(lambda key: send(running, "/v1/jobs", bodies[key], key), twice, timeout=300)
        )
    found: dict[str, Answer] = {}
    for key, answer in zip(twice, answers, strict=True):
        first = found.setdefault(key, answer)
        assert first.body.get("id") == answer.body.get("id"), (key, first, answer)
    return found


def call(number: int, directive: str) -> dict[str, Any]:
    """A job of one of three endpoints and two models, that waits for ``directive``."""
    said = f"{directive} {number}"
    body: dict[str, Any] = {"model": sorted(PRICES)[number % 2]}
    match number % 3:
        case 0:
            endpoint = CHAT
            body |= {"messages": [{"role": "user", "content": said}], "max_tokens": MOST_TOKENS}
        case 1:
            endpoint, body = COMPLETION, body | {"prompt": said, "max_tokens": MOST_TOKENS, "n": 2}
        case _:
            endpoint, body = EMBEDDING, body | {"input": [said, said]}
    return {"endpoint": endpoint, "body": body}


def line(number: int, endpoint: str, directive: str) -> dict[str, Any]:
    """Of a batch's input."""
    body: dict[str, Any] = {"model": "fake", "max_tokens": MOST_TOKENS}
    said = f"{directive} {number}"
    if endpoint == CHAT:
        body["messages"] = [{"role": "user", "content": said}]
    else:
        body |= {"prompt": [said, said], "n": 2}
    return {"custom_id": f"row-{number}", "method": "POST", "url": endpoint, "body": body}


def start_batch(running: Plant, endpoint: str, directives: dict[int, str], rest: str) -> str:
    """Its rows do what ``directives`` say by number, or ``rest``; asked for twice at once."""
    rows = [line(n, endpoint, directives.get(n, rest)) for n in range(BATCH_ROWS)]
    data = b"".join(json.dumps(row).encode() + b"\n" for row in rows)
    given = running.client().files.create(file=("input.jsonl", data), purpose="batch")
    body = {"input_file_id": given.id, "endpoint": endpoint, "completion_window": "24h"}
    with ThreadPoolExecutor(2) as pool:
        tries = [pool.submit(send, running, "/v1/batches", body, f"of-{endpoint}") for _ in "12"]
    ids = {made.result().body["id"] for made in tries}
    assert len(ids) == 1
    return str(ids.pop())


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


def code_of(row: dict[str, Any]) -> str:
    error = row["error"] or row["response"]["body"]["error"]
    return str(error["code"])


def summed(model: str, usages: Sequence[dict[str, int]]) -> Used:
    read = sum(usage["prompt_tokens"] for usage in usages)
    written = sum(usage.get("completion_tokens", 0) for usage in usages)
    price = PRICES[model]
    return Used(len(usages), read, written, read * price[0] + written * price[1])


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


def added(*parts: dict[tuple[str, str], Used]) -> dict[tuple[str, str], Used]:
    found: dict[tuple[str, str], Used] = {}
    for part in parts:
        for group, used in part.items():
            before = found.get(group, Used(0, 0, 0, 0))
            found[group] = Used(*(a + b for a, b in zip(before, used, strict=True)))
    return found


def usage(running: Plant) -> dict[tuple[str, str], Used]:
    """``/v1/usage`` by endpoint and model, all days together; its totals are their sum."""
    with running.http() as http:
        page = http.get("/v1/usage", params={"group_by": "model,endpoint"}).json()
    found: dict[tuple[str, str], Used] = {}
    for day in page["data"]:
        results = [(r["endpoint"], r["model"], used_of(r)) for r in day["results"]]
        assert len({result[:2] for result in results}) == len(results)
        found = added(found, {(endpoint, model): used for endpoint, model, used in results})
    everything = Used(*(sum(column) for column in zip(*found.values(), strict=True)))
    assert everything == used_of(page["totals"])
    return found


def used_of(shown: dict[str, Any]) -> Used:
    return Used(*(shown[name] for name in Used._fields))


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


def wait_rows(running: Plant, rows: int, which: str = "state = 'running'") -> None:
    wait_until(lambda: running.scalar(RUNNING.format(which)) == rows, PATIENCE_SECONDS)


def overfill(running: Plant, tmp_path: Path) -> tuple[str, list[str]]:
    """A batch and more calls than there is room for, all of which wait for a word; whoever holds
    them is killed. The batch's id, and those of all calls, which were sent until they fit."""
    directives = {7: "[[error 400 too_rude]]", 9: "[[hold one]] [[crash-once batch]]"}
    batch_id = start_batch(running, CHAT, directives, "[[hold one]]")
    wait_rows(running, BATCH_ROWS)
    calls = {f"call-{number}": call(number, "[[hold one]]") for number in range(CALLS)}
    first = send_twice(running, calls)
    room = QUEUED_ROWS - BATCH_ROWS
    statuses = Counter(answer.status < httpx2.codes.BAD_REQUEST for answer in first.values())
    assert statuses == {True: room, False: CALLS - room}
    refused = {key for key, answer in first.items() if "id" not in answer.body}
    assert {first[key].status for key in refused} == {httpx2.codes.TOO_MANY_REQUESTS}
    assert {first[key].body["error"]["param"] for key in refused} == {"queued_rows"}
    assert held(running)["queued_rows"] == QUEUED_ROWS
    wait_rows(running, QUEUED_ROWS)
    restart(running, "worker-0", "upkeep")
    (tmp_path / "hold-one").touch()
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
def test_usage_is_what_the_results_say(running: Plant, tmp_path: Path) -> None:
    tenant = str(running.scalar("SELECT id FROM tenants"))
    limit(running, tenant, queued_rows=QUEUED_ROWS, daily_tokens=10**6, monthly_budget=10**9)
    with Watch(running, tenant) as watch:
        held_batch, job_ids = overfill(running, tmp_path)
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
def test_money_is_not_overspent_and_comes_back(running: Plant, tmp_path: Path) -> None:
    """Whoever has money for three calls gets three, however many are sent and sent again."""
    tenant = str(running.scalar("SELECT id FROM tenants"))
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
    wait_rows(running, AFFORDABLE)
    restart(running, "worker-0", "upkeep")
    (tmp_path / "hold-two").touch()
    said = said_by_jobs(running, ids)
    assert usage(running) == said
    check_settled(running)
    (spent,) = said.values()
    assert 0 < spent.cost < budget
    assert held(running)["monthly_cost"] == spent.cost
