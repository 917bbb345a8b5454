"""Calls and batches that are sent twice, and what was used by them, as results and usage say it."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from tests.plant import Plant, wait_until

CHAT, COMPLETION, EMBEDDING = "/v1/chat/completions", "/v1/completions", "/v1/embeddings"
PRICES = {"fake": (3, 7), "other": (2, 11)}
"""Of a token that is read, and of one that is written: in millionths, as costs are."""
BATCH_ROWS = 40
MOST_TOKENS = 50
PATIENCE_SECONDS = 150.0
SENDERS = 8
UNDER_WAY = 409
OPEN_ROWS = """
SELECT coalesce(sum(row_count), 0) FROM shards
 WHERE tenant_id = :tenant AND stage = 'generate'
   AND state NOT IN ('succeeded', 'failed', 'cancelled', 'expired')"""


class Used(NamedTuple):
    """What the results of some rows say, or a line of usage."""

    rows: int
    input_tokens: int
    output_tokens: int
    cost: int


class Answer(NamedTuple):
    status: int
    body: dict[str, Any]


class Watch:
    """Looks again and again at how many rows of a tenant are open, until the block ends."""

    def __init__(self, running: Plant, tenant: str) -> None:
        self._running = running
        self._tenant = tenant
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
            self.most = max(self.most, self._running.scalar(OPEN_ROWS, tenant=self._tenant))
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


def code_of(row: dict[str, Any]) -> str:
    error = row["error"] or row["response"]["body"]["error"]
    return str(error["code"])


def summed(model: str, usages: Sequence[dict[str, int]]) -> Used:
    read = sum(usage["prompt_tokens"] for usage in usages)
    written = sum(usage.get("completion_tokens", 0) for usage in usages)
    price = PRICES[model]
    return Used(len(usages), read, written, read * price[0] + written * price[1])


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
