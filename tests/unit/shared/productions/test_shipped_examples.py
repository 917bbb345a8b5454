"""The example that is shipped: its table can be made again, and its templates fit it."""

from __future__ import annotations

import csv
import io
import runpy
from pathlib import Path
from typing import Any

import pytest

from shared.productions.plan import plan_of
from shared.productions.rendering import Renderer
from shared.productions.template import parse_template

FOLDER = Path(__file__).resolve().parents[4] / "examples" / "products"
TEMPLATES = sorted(path.name for path in FOLDER.glob("*.txt"))


def rows() -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO((FOLDER / "products.csv").read_text())))


def test_the_table_is_what_its_generator_writes() -> None:
    made: dict[str, Any] = runpy.run_path(str(FOLDER / "generate.py"))

    assert made["as_csv"]() == (FOLDER / "products.csv").read_text()
    assert len(rows()) == made["ROWS"] == 2_000


def test_there_are_three_templates() -> None:
    assert TEMPLATES == ["headlines.txt", "product-copy.txt", "product-json.txt"]


@pytest.mark.parametrize("name", TEMPLATES)
def test_every_template_can_be_rendered_for_every_row(name: str) -> None:
    template = parse_template((FOLDER / name).read_text())
    plan, renderer = plan_of(template, model="m"), Renderer(template)
    template.check_table(rows()[0])
    listed = template.head.audiences
    audiences = listed if isinstance(listed, list) else [None]
    texts = {step.name: "a text" for step in template.head.steps}

    for row in rows():
        for audience in audiences:
            for phase in plan.phases:
                messages = renderer.messages(row, step=phase.step, audience=audience, texts=texts)
                assert row["name"] in messages[-1]["content"]
