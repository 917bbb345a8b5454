from __future__ import annotations

import json
import re

import pytest

from pressrun.demo.results import collect, summary_markdown
from pressrun.demo.rows import (
    CHAT,
    LEAST_ROWS,
    PICTURE,
    PICTURES,
    TONES,
    VOICE_OVER,
    VOICE_OVERS,
    DemoRow,
    Models,
    campaign_brief,
    demo_rows,
    input_lines,
)
from shared.specs import parse_body

MODELS = Models("writer", "painter", "speaker")
EXTRA = PICTURES + VOICE_OVERS


def test_rows_come_from_both_tables_and_are_valid_requests() -> None:
    rows = demo_rows(LEAST_ROWS)
    assert sum(row.custom_id.startswith("ad-") for row in rows) >= 12
    assert sum(row.custom_id.startswith("news-") for row in rows) >= 12
    assert {row.custom_id.split("-")[2] for row in rows if row.custom_id.startswith("news-")} == {
        "headline",
        "rewrite",
    }
    urls = []
    for line in map(json.loads, input_lines(rows, MODELS).splitlines()):
        assert line["method"] == "POST"
        spec = parse_body(line["url"], line["body"])
        wanted = {CHAT: "writer", PICTURE: "painter", VOICE_OVER: "speaker"}
        assert spec.model == wanted[line["url"]]
        urls.append(line["url"])
    assert urls.count(CHAT) == LEAST_ROWS
    assert urls.count(PICTURE) == PICTURES
    assert urls.count(VOICE_OVER) == VOICE_OVERS


def test_the_brief_is_a_valid_request() -> None:
    brief = campaign_brief(MODELS)
    spec = parse_body("/v1/campaigns", brief)
    assert spec.model == "writer"
    assert "tent" in brief["product"]


def test_templates_are_filled_completely() -> None:
    for row in demo_rows(200)[:-EXTRA]:
        assert "$" not in row.prompt
        assert not re.search(r"\b(None|a an|an? the)\b", row.prompt)
        assert len(row.prompt) > 80


@pytest.mark.parametrize("count", [24, 57, 1_000])
def test_any_number_of_rows_are_all_different(count: int) -> None:
    rows = demo_rows(count)
    assert len({row.custom_id for row in rows}) == len(rows) == count + EXTRA
    assert len({(row.prompt, row.options["seed"]) for row in rows[:-EXTRA]}) == count


def test_a_product_meets_every_tone_before_one_comes_again() -> None:
    prompts = [row.prompt for row in demo_rows(1_000) if row.custom_id.startswith("ad-tent-")]
    assert len(set(prompts[: len(TONES)])) == len(TONES)


def _done(custom_id: str, text: str) -> str:
    usage = {"prompt_tokens": 3, "completion_tokens": 2}
    body = {"choices": [{"message": {"content": text}}], "usage": usage}
    return json.dumps({"custom_id": custom_id, "response": {"status_code": 200, "body": body}})


def test_every_row_is_accounted_for() -> None:
    rows = [DemoRow(name, CHAT, f"ask {name}\nplease", {}) for name in "abcd"]
    rows.append(DemoRow("e", PICTURE, "a kite", {}))
    drawn = {"data": [{"artifact_id": "art_1"}], "output_format": "png"}
    picture = json.dumps({"custom_id": "e", "response": {"status_code": 200, "body": drawn}})
    failed = {"error": {"message": "too long", "code": "context_length_exceeded"}}
    errors = [
        json.dumps({"custom_id": "c", "response": {"status_code": 400, "body": failed}}),
        json.dumps(
            {"custom_id": "d", "response": None, "error": {"message": "late", "code": "expired"}}
        ),
    ]
    results = collect(rows, [_done("a", " one \n") + "\n", "\n", picture], errors, seconds=2.0)

    assert results.texts == {"a": "one"}
    assert results.errors == {
        "c": "too long (context_length_exceeded)",
        "d": "late (expired)",
    }
    assert results.missing == ["b"]
    assert (results.input_tokens, results.output_tokens) == (3, 2)
    summary = summary_markdown(results, models=MODELS, batch_id="batch_1")
    assert "rows: 5, of which 2 completed, 2 failed, 1 missing" in summary
    assert "> a kite\n\n![e](pictures/e.png)" in summary
    assert "> ask a\n> please\n\none" in summary
    assert "failed: no result" in summary
