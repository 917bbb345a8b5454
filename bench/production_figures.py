"""A production of the shipped products with the starter model: what comes out is checked line by
line, a worker is killed in the middle, and rows a second are printed."""

from __future__ import annotations

import csv
import io
import itertools
import time
from collections import Counter
from typing import Any

from bench.machine import ROOT
from bench.report import Measurement
from bench.rig import Rig
from shared.models_catalog import ModelEntry
from shared.productions.gates import Gates
from shared.productions.schemas import Schema
from shared.productions.template import Template, parse_template
from shared.productions.words import shingles
from tests.plant import Plant, wait_until
from worker.upkeep.productions.language import language_of

EXAMPLE = ROOT / "examples" / "products"
TEMPLATE = "product-json.txt"
MODEL = "smollm2"
ROWS, QUICK_ROWS = 2_000, 60
SECONDS = 7_200.0
SHINGLE_WORDS = 3
"""As ``worker.upkeep.productions.duplicates`` has it."""
ENDED = {"succeeded", "failed", "cancelled", "expired"}


class NotAsPromised(Exception):
    """The output breaks a promise; the message says which."""


def production_2000(rig: Rig) -> Measurement:
    """Rows a second of the whole production: upload, three rounds at most, joined output."""
    count = QUICK_ROWS if rig.quick else ROWS
    data = "".join((EXAMPLE / "products.csv").open().readlines()[: count + 1])
    template = parse_template((EXAMPLE / TEMPLATE).read_text())
    entry = ModelEntry(id=MODEL, engine="text", source=str(rig.text_model))
    with rig.plant(models=[entry]) as plant:
        plant.start()
        began = time.monotonic()
        production_id = _submit(plant, template.source, data)
        _kill_in_the_middle(plant, production_id)
        seen = _wait(plant, production_id)
        seconds = time.monotonic() - began
        lines = _output(plant, production_id)
    _check(seen, lines, list(csv.DictReader(io.StringIO(data))), template)
    return Measurement(
        count / seconds,
        {
            "unit": "rows/s",
            "rows": count,
            "seconds": round(seconds, 1),
            "summary": seen["summary"],
            "checked": "every row once, counts, schema, all pairs of kept texts",
            "killed": "the worker, by SIGKILL, while the first round ran",
        },
    )


def _submit(plant: Plant, template: str, data: str) -> str:
    with plant.http() as http:
        form = {"file": ("products.csv", data.encode())}
        file = http.post("/v1/files", data={"purpose": "user_data"}, files=form)
        file.raise_for_status()
        body = {"template": template, "data_file_id": file.json()["id"], "model": MODEL}
        made = http.post("/v1/productions", json=body | {"sampling": {"seed": 1}})
        made.raise_for_status()
    return str(made.json()["id"])


def _look(plant: Plant, production_id: str) -> dict[str, Any]:
    with plant.http() as http:
        return dict(http.get(f"/v1/productions/{production_id}").json())


def _kill_in_the_middle(plant: Plant, production_id: str) -> None:
    def in_the_middle() -> bool:
        seen = _look(plant, production_id)
        batch = seen["batch"] or {"done": 0, "rows": 1}
        return seen["round"] > 0 or seen["status"] in ENDED or 3 * batch["done"] > batch["rows"]

    wait_until(in_the_middle, SECONDS, lambda: str(_look(plant, production_id)), 0.5)
    plant.processes["worker-0"].kill()
    plant.restart("worker-0")


def _wait(plant: Plant, production_id: str) -> dict[str, Any]:
    wait_until(
        lambda: _look(plant, production_id)["status"] in ENDED,
        SECONDS,
        lambda: str(_look(plant, production_id)),
        0.5,
    )
    seen = _look(plant, production_id)
    if seen["status"] != "succeeded":
        raise NotAsPromised(f"it ended {seen['status']}: {seen['error']}")
    return seen


def _output(plant: Plant, production_id: str) -> list[dict[str, str]]:
    with plant.http() as http:
        found = http.get(f"/v1/productions/{production_id}/output")
        text = http.get(plant.url_for(found.headers["Location"])).text
    return list(csv.DictReader(io.StringIO(text)))


def _check(
    seen: dict[str, Any],
    lines: list[dict[str, str]],
    table: list[dict[str, str]],
    template: Template,
) -> None:
    """Raises NotAsPromised."""
    own = [{name: line[name] for name in table[0]} for line in lines]
    _promise("every row of the table is there once, in order, as it was", own == table)
    counted, summary = Counter(line["status"] for line in lines), seen["summary"]
    for status in ("succeeded", "rejected", "failed", "not_found"):
        _promise(f"{status} is counted", counted[status] == summary[status])
    _promise("the counts add up", sum(counted.values()) == summary["lines"] == len(table))
    gates = sum(summary["rejected_by_gate"].values())
    _promise("the gates' counts add up", gates == summary["rejected"])
    kept = [line["output"] for line in lines if line["status"] == "succeeded"]
    _promise("something is kept", bool(kept))
    schema = Schema(template.head.json_schema or {})
    for text in kept:
        _promise(f"a kept text passes its schema: {text[:200]}", schema.problem(text) is None)
    _check_pairs(kept, template)


def _check_pairs(kept: list[str], template: Template) -> None:
    gates = Gates(template, language_of)
    threshold = gates.near_duplicates or 1.0
    sets = [shingles(gates.said(text), SHINGLE_WORDS) for text in kept]
    for one, other in itertools.combinations(sets, 2):
        common = len(one & other)
        alike = common / (len(one) + len(other) - common)
        _promise("no two kept texts are near-duplicates", alike < threshold)


def _promise(what: str, is_kept: bool) -> None:
    if not is_kept:
        raise NotAsPromised(f"not so: {what}")
