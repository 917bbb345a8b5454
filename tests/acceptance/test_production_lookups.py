"""Productions that look things up, in a whole plant: they are the same whoever is killed, and the
shipped examples run."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pressrun.main import main
from shared.models_catalog import ModelEntry
from tests.acceptance.production_case import ENDED, look, output_of, wait
from tests.plant import FAST, Plant, plant, wait_until

ROWS = 24
SLOW = ModelEntry(id="fake-slow", engine="fake", settings={"seconds_per_row": 0.3, "capacity": 32})
EMBEDDER = ModelEntry(id="all-minilm-l6-v2", engine="fake", endpoints=["/v1/embeddings"])
TEMPLATE = """\
---
models: [fake, fake-slow]
n: 2
best_of: {{model: fake-slow, label: science}}
retries: 1
gates: {{min_words: 20}}
examples_from: {{file: {examples}, n: 2, model: fake-slow}}
documents:
  {{files: [{document}], query: "Of {{{{ name }}}}", n: 2, model: fake-slow, min_score: 0.18}}
---
Write of {{{{ name }}}} from {{{{ sources }}}}.
"""
EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
SHIPPED = {
    "audiences/leaflet.txt": ("audiences/events.csv", 12),
    "translations/translate.txt": ("translations/phrases.csv", 4),
    "summaries/summarize.txt": ("summaries/reports.jsonl", 3),
    "answers/reply.txt": ("answers/questions.jsonl", 5),
    "style/slogan.txt": ("style/products.csv", 5),
}
"""The data of each template, and how many lines come of them."""


@pytest.fixture
def running(tmp_path: Path, database_url: str, broker_url: str) -> Iterator[Plant]:
    models = (FAST, SLOW, EMBEDDER)
    with plant(tmp_path / "plant", database_url, broker_url, models=models) as made:
        yield made.start()


def upload(running: Plant, name: str, content: str) -> str:
    with running.http() as http:
        form = {"file": (name, content.encode())}
        made = http.post("/v1/files", data={"purpose": "user_data"}, files=form)
    return str(made.json()["id"])


def submit(running: Plant) -> str:
    names = [f"thing {number}" for number in range(ROWS)]
    examples = "name,output\n" + "".join(f"{name},So is {name}.\n" for name in names)
    document = "".join(f"# {name}\nWhat there is to say of {name}.\n" for name in names)
    body = {
        "template": TEMPLATE.format(
            examples=upload(running, "examples.csv", examples),
            document=upload(running, "things.md", document),
        ),
        "data_file_id": upload(running, "data.csv", "name\n" + "\n".join(names)),
        "sampling": {"seed": 7},
    }
    with running.http() as http:
        made = http.post("/v1/productions", json=body)
    assert made.status_code == 202, made.text
    return str(made.json()["id"])


def lines_of(running: Plant, production_id: str) -> list[dict[str, str]]:
    """Without the ids of files, which each production has of its own."""
    lines = output_of(running, production_id)
    for line in lines:
        sources = [one | {"file": ""} for one in json.loads(line["sources"])]
        line["sources"] = json.dumps(sources)
    return lines


def test_killing_everything_changes_nothing(running: Plant) -> None:
    """All that works on it is killed while documents are embedded, and while texts are scored."""
    calm = submit(running)
    wait(running, calm)
    harassed = submit(running)

    for phase in (1, 3):
        wait_until(
            lambda phase=phase: _is_at(look(running, harassed), phase),
            120,
            lambda: json.dumps(look(running, harassed)),
        )
        for name in ("upkeep", "worker-0"):
            running.processes[name].kill()
            running.restart(name)

    seen = wait(running, harassed)
    assert seen["status"] == "succeeded", seen
    lines = lines_of(running, harassed)
    assert lines == lines_of(running, calm)
    assert len(lines) == ROWS
    summary = seen["summary"]
    told = [summary[name] for name in ("succeeded", "rejected", "failed", "not_found")]
    assert sum(told) == ROWS
    assert summary["succeeded"] > 0
    assert summary["not_found"] > 0


def _is_at(seen: dict[str, Any], phase: int) -> bool:
    """In that phase, or beyond it."""
    is_on = seen["batch"] is not None or seen["status"] in ENDED
    return (seen["round"], seen["phase"]) >= (0, phase) and is_on


def test_the_shipped_examples(running: Plant, capsys: pytest.CaptureFixture[str]) -> None:
    """The command uploads what they name by a path. A fake model writes no translations: what
    counts is that every line is told, and what was looked up."""
    for template, (data, lines) in SHIPPED.items():
        seen = _produced(running, EXAMPLES / template, EXAMPLES / data, capsys)
        assert seen["status"] == "succeeded", seen
        assert seen["summary"]["failed"] == 0, seen
        assert seen["lines"] == seen["summary"]["lines"] == lines
        found = output_of(running, seen["id"])
        assert len(found) == lines
        if template.startswith("audiences/"):
            assert {one["audience"] for one in found} == {
                "parents", "students", "pensioners",
            }  # fmt: skip


def _produced(
    running: Plant, template: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> dict[str, Any]:
    asked = ["produce", str(template), "--data", str(data), "--model", "fake", "--json"]
    with pytest.raises(SystemExit):
        main([*asked, "--url", running.url, "--api-key", running.api_key])
    return dict(json.loads(capsys.readouterr().out))
