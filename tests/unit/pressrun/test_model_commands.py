"""``pressrun models``: aliases made, moved, gated, listed and rolled back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pressrun.exit_codes import ExitCode
from tests.unit.pressrun.conftest import Run
from tests.unit.pressrun.fake_server import FakeServer, alias, job, move

ALIASES = "/v1/model_aliases"
NAME = "writer@production"
ONE = f"{ALIASES}/{NAME}"
MEASURED = {
    "metric": "loss", "direction": "min", "min_improvement": 0.0, "holder": "old",
    "holder_value": 0.75, "candidate_value": 0.5, "reason": "better",
}  # fmt: skip


@pytest.fixture
def held(connected: FakeServer) -> FakeServer:
    connected.aliases[NAME] = alias(NAME, "old")
    return connected


def test_a_new_alias_is_made(connected: FakeServer, run: Run) -> None:
    ended = run("models", "alias", NAME, "writer")
    assert ended.code == ExitCode.OK, ended.err
    assert ended.out.strip() == f"{NAME} is writer, version 1"
    [sent] = connected.requests("POST", ALIASES)
    assert sent.body == {"name": NAME, "model": "writer"}
    assert connected.requests("POST", ONE) == []


def test_an_alias_that_is_there_is_moved(held: FakeServer, run: Run) -> None:
    ended = run("models", "alias", NAME, "writer", "--json")
    assert ended.code == ExitCode.OK, ended.err
    assert json.loads(ended.out)["version"] == 2
    [sent] = held.requests("POST", ONE)
    assert sent.body == {"model": "writer"}
    assert held.requests("POST", ALIASES) == []


def test_a_move_may_expect_a_holder(held: FakeServer, run: Run) -> None:
    assert run("models", "alias", NAME, "writer", "--expect", "old").code == ExitCode.OK
    [sent] = held.requests("POST", ONE)
    assert sent.body == {"model": "writer", "expected_model": "old"}
    ended = run("models", "alias", "other@x", "writer", "--expect", "old")
    assert ended.code == ExitCode.REFUSED  # nothing is made for one that was expected
    assert held.requests("POST", ALIASES) == []


def test_a_server_that_refuses_the_question_makes_nothing(held: FakeServer, run: Run) -> None:
    held.failures = [(ONE, 401, {})]
    assert run("models", "alias", NAME, "writer").code == ExitCode.AUTH
    assert held.requests("POST", ALIASES) == held.requests("POST", ONE) == []


def test_a_gate_uploads_its_examples(held: FakeServer, run: Run) -> None:
    Path("rows.jsonl").write_text('{"messages": []}\n')
    ended = run(
        *("models", "alias", NAME, "writer", "--gate", "rows.jsonl"),
        *("--metric", "macro_f1", "--min-improvement", "0.25"),
    )
    assert ended.code == ExitCode.OK, ended.err
    assert ended.out.strip() == "job_1"
    [sent] = held.requests("POST", ONE)
    assert sent.headers["Idempotency-Key"]
    assert sent.body == {
        "model": "writer",
        "gate": {"evaluation_file": "file-1", "metric": "macro_f1", "min_improvement": 0.25},
    }
    assert run("models", "alias", NAME, "writer", "--gate", "nothing.jsonl").code == ExitCode.USAGE


def test_a_gate_for_a_new_alias_gives_it_to_nobody_at_first(
    connected: FakeServer, run: Run
) -> None:
    assert run("models", "alias", NAME, "writer", "--gate", "file-9").code == ExitCode.OK
    [made] = connected.requests("POST", ALIASES)
    assert made.body == {"name": NAME, "model": None}
    [sent] = connected.requests("POST", ONE)
    assert sent.body["gate"]["evaluation_file"] == "file-9"


@pytest.mark.parametrize(
    ("outcome", "code"),
    [("moved", ExitCode.OK), ("kept", ExitCode.FAILED), ("superseded", ExitCode.FAILED)],
)
def test_watching_a_gate_ends_with_its_verdict(
    held: FakeServer, run: Run, outcome: str, code: ExitCode
) -> None:
    held.jobs["job_1"] = [job("running"), job("succeeded")]
    decided: dict[str, Any] = {"by": "gate", "outcome": outcome, "evaluation": MEASURED}
    held.moves = [move("writer", job_id="job_1", **decided), move("old", job_id="job_0")]
    ended = run("models", "alias", NAME, "writer", "--gate", "file-9", "--watch")
    assert ended.code == code, ended.err
    assert "loss 0.5 against 0.75" in ended.out
    assert outcome in ended.out


def test_an_evaluation_that_fails_moves_nothing(held: FakeServer, run: Run) -> None:
    held.jobs["job_1"] = [job("failed", error={"code": "x", "message": "bad file"})]
    ended = run("models", "alias", NAME, "writer", "--gate", "file-9", "--watch")
    assert ended.code == ExitCode.FAILED
    assert "bad file" in ended.err


def test_aliases_and_their_history_are_listed(held: FakeServer, run: Run) -> None:
    held.aliases["empty@x"] = alias("empty@x", None)
    ended = run("models", "aliases")
    assert ended.code == ExitCode.OK
    assert [line.split()[:3] for line in ended.out.splitlines()[1:]] == [
        [NAME, "old", "1"],
        ["empty@x", "-", "0"],
    ]
    held.moves = [move("old", by="rollback")]
    ended = run("models", "history", NAME)
    assert ended.code == ExitCode.OK
    assert "rollback" in ended.out


def test_rolling_back_is_one_call(held: FakeServer, run: Run) -> None:
    ended = run("models", "rollback", NAME)
    assert ended.out.strip() == f"{NAME} is before, version 2"
    [sent] = held.requests("POST", f"{ONE}/rollback")
    assert sent.body == {}
    assert run("models", "rollback", "no@x").code == ExitCode.REFUSED
