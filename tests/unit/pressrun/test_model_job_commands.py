"""``models evaluate`` and ``models optimize`` against a server that answers as the API does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pressrun.exit_codes import ExitCode
from tests.unit.pressrun import fake_server
from tests.unit.pressrun.conftest import Run
from tests.unit.pressrun.fake_server import FakeServer, job

EVALUATIONS, OPTIMIZE = "/v1/evaluations", "/v1/models/writer/optimize"
MEASURED = {
    "metric": "loss",
    "direction": "min",
    "best": "poet",
    "models": [
        {"model": "writer", "values": {"loss": 2.5, "perplexity": 12.18}},
        {"model": "poet", "values": {"loss": 2.25, "perplexity": None}},
    ],
}
COMPARED = {
    "model": "ft:writer:t:int8:1",
    "costs": {"disk_bytes": {"before": 2**21, "after": 2**20}},
    "quality": {"loss": {"before": 2.5, "after": 2.51}},
}


@pytest.fixture
def ended(connected: FakeServer, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The one job that there is, as it has ended."""
    shown = job("succeeded", id="eval_1", result=MEASURED)

    def answer(handler: Any, state: FakeServer, seen: Any, *_: str) -> None:
        handler.answer(shown)

    routes = [
        ("POST", EVALUATIONS, answer),
        ("POST", "/v1/models/([^/]+)/optimize", answer),
        ("GET", "/v1/jobs/([^/]+)", answer),
    ]
    monkeypatch.setattr(fake_server, "_ROUTES", routes + fake_server._ROUTES)
    return shown


def test_models_are_measured_on_a_file(
    ended: dict[str, Any], connected: FakeServer, run: Run
) -> None:
    Path("rows.jsonl").write_text('{"messages": []}\n')
    done = run("models", "evaluate", "rows.jsonl", "writer", "poet", "--max-examples", "9")
    assert done.code == ExitCode.OK, done.err
    assert "best by loss: poet" in done.out
    [sent] = connected.requests("POST", EVALUATIONS)
    assert sent.headers["Idempotency-Key"]
    assert sent.body == {
        "models": ["writer", "poet"],
        "file": "file-1",
        "metric": "loss",
        "max_examples": 9,
    }


def test_its_id_alone(ended: dict[str, Any], connected: FakeServer, run: Run) -> None:
    done = run("models", "evaluate", "file-9", "writer", "--no-watch")
    assert done.out.strip() == "eval_1"
    assert connected.requests("POST", "/v1/files") == []


@pytest.mark.parametrize(
    ("words", "method"),
    [
        (["merge"], {"type": "merge"}),
        (["int4"], {"type": "quantize", "scheme": "int4"}),
        (
            ["prune", "--amount", "0.5", "--structured"],
            {"type": "prune", "amount": 0.5, "structure": "structured"},
        ),
    ],
)
def test_a_smaller_model(
    ended: dict[str, Any],
    connected: FakeServer,
    run: Run,
    words: list[str],
    method: dict[str, Any],
) -> None:
    ended["result"] = COMPARED
    done = run("models", "optimize", "writer", *words, "--evaluation-file", "file-9")
    assert done.code == ExitCode.OK, done.err
    assert "ft:writer:t:int8:1" in done.out
    [sent] = connected.requests("POST", OPTIMIZE)
    assert sent.body == {"method": method, "max_drop": 0.02, "evaluation_file": "file-9"}


def test_a_model_that_is_too_much_worse(
    ended: dict[str, Any], connected: FakeServer, run: Run
) -> None:
    error = {"code": "quality_dropped", "message": "loss went up", "param": None}
    ended.update(state="failed", error=error, result=COMPARED | {"model": None})
    done = run("models", "optimize", "writer", "int4", "--json")
    assert done.code == ExitCode.FAILED
    assert "quality_dropped" in done.err
    assert json.loads(done.out)["result"]["quality"]["loss"]["after"] == 2.51


def test_a_method_that_there_is_not(connected: FakeServer, run: Run) -> None:
    done = run("models", "optimize", "writer", "shrink")
    assert done.code == ExitCode.USAGE
    assert connected.requests("POST", OPTIMIZE) == []
