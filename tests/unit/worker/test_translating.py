"""Rows that are translated for their engine, in a slice and alone; their answers, good and bad."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from shared.ids import accepted_seconds, new_response_id
from shared.lifecycle.working import UsageLine
from shared.specs import parse_body_json
from shared.states import ShardState
from shared.storage.local import LocalStore
from shared.translation.thresholds import USUAL, parse_thresholds
from tests.unit.worker.claims import BODY, CHAT, make_claim
from worker.engines.protocol import RowResult
from worker.execution import ShardRun
from worker.reading import is_plain
from worker.rows import RowInput, single_row
from worker.translating import Translator

RESPONSES, MODERATIONS = "/v1/responses", "/v1/moderations"
ASKED = {"model": "m", "input": "Name a river", "metadata": {"a": "b"}}
CHAT_ANSWER: dict[str, Any] = {
    "created": 1_900_000_000,
    "model": "m",
    "choices": [{"message": {"content": "Rhine"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8},
}
LABELS: dict[str, Any] = {
    "model": "guard",
    "data": [{"scores": [{"label": "violence", "score": 0.7}], "truncated": True}],
}


def single(endpoint: str = RESPONSES, body: dict[str, Any] = ASKED, **fields: Any) -> ShardRun:
    claim = make_claim(kind="response", endpoint=endpoint, spec=json.dumps(body),
                       job_id=new_response_id(), **fields)  # fmt: skip
    return ShardRun(claim, "w1", Translator(USUAL).rows(claim, single_row(claim)))


def result(run: ShardRun, body: Any, *, index: int = 0, status: int = 200) -> RowResult:
    return RowResult(run.held.shard_id, 1, index, status, json.dumps(body).encode(), 3, 5)


def test_an_engine_is_asked_a_chat_completion() -> None:
    (row,) = single().rows.values()
    assert (row.endpoint, row.engine_endpoint) == (RESPONSES, CHAT)
    parse_body_json(row.engine_endpoint, row.body)
    assert json.loads(row.body)["messages"] == [{"role": "user", "content": "Name a river"}]


def test_the_answer_of_a_job_is_called_as_the_job_is() -> None:
    run = single()
    run.take(result(run, CHAT_ANSWER))
    end = run.end_generation()
    assert (end.state, end.input_tokens, end.output_tokens) == (ShardState.SUCCEEDED, 3, 5)
    made = json.loads(end.result or "")
    assert (made["id"], made["status"]) == (run.claim.job_id, "completed")
    assert made["created_at"] == accepted_seconds(run.claim.job_id)
    assert made["metadata"] == {"a": "b"}


def test_an_engines_complaint_names_what_the_caller_wrote() -> None:
    run = single()
    error = {"code": "context_length_exceeded", "message": "too long", "param": "messages"}
    run.take(result(run, {"error": error}, status=400))
    end = run.end_generation()
    assert (end.error_code, end.error_param) == ("context_length_exceeded", "input")


@pytest.mark.parametrize("answer", [{}, [], 5, {"choices": []}, {"choices": [{}], "model": "m"}])
def test_an_answer_that_cannot_be_one_fails_its_row_alone(answer: Any) -> None:
    run = single()
    run.take(result(run, answer))
    assert (run.completed, run.failed) == (0, 1)
    end = run.end_generation()
    assert (end.state, end.error_code) == (ShardState.FAILED, "engine_error")
    broken = single()
    broken.take(result(broken, {"message": "no error member"}, status=500))
    assert broken.end_generation().error_code == "engine_error"


def test_rows_of_a_slice_have_lines_of_their_own_endpoint(tmp_path: Path) -> None:
    claim = make_claim(kind="batch", endpoint="/v1/*")
    rows = [
        RowInput(0, 1, "response", RESPONSES, "m", json.dumps(ASKED).encode()),
        RowInput(1, 2, "moderation", MODERATIONS, "guard", b'{"input": "x"}'),
        RowInput(2, 3, "chat", CHAT, "m", BODY),
    ]
    translator = Translator(parse_thresholds("0.8"))
    lines: list[dict[str, Any]] = []
    for attempt in range(2):  # the same bytes each time
        run = ShardRun(claim, f"w{attempt}", translator.rows(claim, rows))
        assert run.rows[2] == rows[2]
        assert json.loads(run.rows[1].body)["model"] == "guard"
        for index, answer in enumerate([CHAT_ANSWER, LABELS, {"id": "as it is"}]):
            run.take(result(run, answer, index=index))
        store = LocalStore(tmp_path / str(attempt), "a key of some length")
        end = run.end_slice(store)
        assert end.output is not None
        lines.append({"bytes": b"".join(store.read(end.output.key)), "usage": end.usage})
    assert lines[0] == lines[1]
    assert [line.endpoint for line in lines[0]["usage"]] == [RESPONSES, MODERATIONS, CHAT]
    assert lines[0]["usage"][0] == UsageLine(RESPONSES, "m", 1, 3, 5)
    bodies = [json.loads(line)["response"]["body"] for line in lines[0]["bytes"].splitlines()]
    assert (bodies[0]["object"], bodies[0]["created_at"]) == ("response", 1_900_000_000)
    assert bodies[1]["results"][0]["flagged"] is False
    assert bodies[1]["results"][0]["truncated"] is True
    assert bodies[2] == {"id": "as it is"}


def test_such_a_claim_is_read_by_a_reader() -> None:
    assert is_plain(make_claim())
    assert not is_plain(make_claim(kind="response", endpoint=RESPONSES))
