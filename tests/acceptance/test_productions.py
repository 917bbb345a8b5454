"""Productions in a whole plant: every process may be killed, and nothing about the rows changes."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pyarrow import parquet

from pressrun.main import main
from shared.models_catalog import ModelEntry
from tests.acceptance.production_case import look, output_of, wait
from tests.plant import FAST, Plant, plant, wait_until

ROWS = 60
SLOW = ModelEntry(id="fake-slow", engine="fake", settings={"seconds_per_row": 0.4, "capacity": 32})
TEMPLATE = """\
---
models: [fake, fake-slow]
n: 2
retries: 1
gates: {min_words: 12, near_duplicates: 0.9}
audiences: [{name: kids}, {name: adults}]
steps:
  - {name: draft, prompt: "Draft for {{ name }}."}
---
Polish {{ draft }} for {{ audience.name }}.
"""
SLEEPER = """\
---
model: fake
---
{{ name }}{% if name == 'product 7' %} [[sleep-forever]]{% endif %}
"""
EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "products"


@pytest.fixture
def running(tmp_path: Path, database_url: str, broker_url: str) -> Iterator[Plant]:
    with plant(tmp_path / "plant", database_url, broker_url, models=(FAST, SLOW)) as made:
        yield made.start()


def submit(running: Plant, template: str = TEMPLATE, **changed: Any) -> str:
    table = "name\n" + "".join(f"product {number}\n" for number in range(ROWS))
    with running.http() as http:
        form = {"file": ("products.csv", table.encode())}
        file = http.post("/v1/files", data={"purpose": "user_data"}, files=form).json()
        body = {"template": template, "data_file_id": file["id"], **changed}
        made = http.post("/v1/productions", json=body)
    assert made.status_code == 202, made.text
    return str(made.json()["id"])


def test_killing_upkeep_and_the_worker_changes_nothing(running: Plant) -> None:
    """Two productions of the same seed; during one of them all that works on it is killed, in its
    first round and in a later phase."""
    calm = submit(running, sampling={"seed": 7})
    wait(running, calm)
    harassed = submit(running, sampling={"seed": 7})

    for phase in (0, 1):
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
    assert output_of(running, harassed) == output_of(running, calm)
    lines = output_of(running, harassed)
    assert len(lines) == ROWS * 2 * 4 == seen["lines"]
    counted = Counter(line["status"] for line in lines)
    summary = seen["summary"]
    assert counted["succeeded"] == summary["succeeded"] > 0
    assert counted["rejected"] == summary["rejected"] == sum(summary["rejected_by_gate"].values())
    assert summary["regenerated"] > 0


def _is_at(seen: dict[str, Any], phase: int) -> bool:
    """In that phase, or beyond it."""
    return (seen["round"], seen["phase"]) >= (0, phase) and (
        seen["batch"] is not None or seen["round"] > 0
    )


def test_the_commands(running: Plant, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A preview, every format, a look at all of them, and one that is cancelled: some of its rows
    never end, and the others are in its output."""
    table = tmp_path / "products.csv"
    table.write_text("".join((EXAMPLE / "products.csv").open().readlines()[: ROWS + 1]))

    def pressrun(*arguments: object) -> tuple[int, str]:
        with pytest.raises(SystemExit) as left:
            main([*map(str, arguments), "--url", running.url, "--api-key", running.api_key])
        return int(left.value.code or 0), capsys.readouterr().out

    produce = ("produce", EXAMPLE / "headlines.txt", "--data", table, "--model", "fake")
    code, shown = pressrun(*produce, "--preview", "--rows", 1)
    assert (code, "Mallow armchair, made for families" in shown) == (0, True), shown
    output = tmp_path / "copy.csv"
    unnamed = tmp_path / "unnamed.txt"  # the fake model names no product
    unnamed.write_text(
        (EXAMPLE / "headlines.txt").read_text().replace("  required:", "  forbidden:")
    )
    code, shown = pressrun("produce", unnamed, *produce[2:], "--output", output)
    assert (code, "near-duplicates removed" in shown) == (0, True), shown
    assert _lines(output) == ROWS * 2
    plain = tmp_path / "plain.txt"
    plain.write_text("Praise the {{ name }}.")
    for suffix in ("jsonl", "parquet"):
        output = tmp_path / f"copy.{suffix}"
        asked = ("produce", plain, "--data", table, "--model", "fake", "-n", 2)
        assert pressrun(*asked, "--output", output)[0] == 0
        assert _lines(output) == ROWS * 2
    code, shown = pressrun("productions", "list", "--json")
    assert [one["lines"] for one in json.loads(shown)] == [ROWS * 2] * 3

    production_id = submit(running, SLEEPER)
    wait_until(
        lambda: (look(running, production_id)["batch"] or {}).get("done", 0) == ROWS - 1,
        120,
        lambda: json.dumps(look(running, production_id)),
    )
    assert pressrun("productions", "cancel", production_id)[0] == 0
    code, shown = pressrun("productions", "watch", production_id, "--json")
    seen = json.loads(shown)
    assert (code, seen["status"], seen["summary"]["succeeded"]) == (1, "cancelled", ROWS - 1)
    assert pressrun("productions", "show", production_id)[0] == 0
    (failed,) = [line for line in output_of(running, production_id) if line["status"] == "failed"]
    assert (failed["name"], failed["reason"].split(":")[0]) == ("product 7", "batch_cancelled")


def _lines(output: Path) -> int:
    if output.suffix == ".parquet":
        return int(parquet.ParquetFile(output).metadata.num_rows)
    with output.open(newline="") as file:
        return sum(1 for _ in (csv.DictReader(file) if output.suffix == ".csv" else file))
