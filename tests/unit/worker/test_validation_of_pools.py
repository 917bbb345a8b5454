"""Batches whose rows go to several pools, and graphs among them."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.worker.test_validation import (
    CAMPAIGNS,
    COMPOSITIONS,
    IMAGES,
    MODELS,
    SPEECH,
    VIDEOS,
    found,
    jsonl,
    row,
    validate,
)
from worker.upkeep.costs import expected_seconds


def test_each_row_goes_to_the_pool_of_its_model() -> None:
    assert validate(jsonl(row("a"), row("b"))).pools == ["text"]
    verdict = validate(jsonl(row("a", model="large"), row("b", model="large")))
    assert (verdict.pools, verdict.bad_lines) == (["a100"], 0)
    verdict = validate(jsonl(row("a"), row("b", model="large"), row("c")))
    assert verdict.pools == ["a100", "text"]
    assert [
        (part.ordinal, part.pool, part.lines and list(part.lines)) for part in verdict.slices
    ] == [
        (0, "text", [1, 3]),
        (1, "a100", None),
    ]


MIXED = [
    row("a"),
    row("b", url=IMAGES, body={"model": "i", "prompt": "a fox", "n": 2}),
    row("c", url=SPEECH, body={"model": "s", "input": "Hello."}),
    row("d", url=VIDEOS, body={"model": "v", "prompt": "a fox runs"}),
    row("e", url=VIDEOS, body={"model": "c", "prompt": "A fox runs. It jumps."}),
    row("f", url=CAMPAIGNS, body={"model": "m", "product": "soap"}),
    row("g"),
]


def test_a_batch_of_any_endpoint_goes_where_each_row_belongs() -> None:
    verdict = validate(jsonl(*MIXED), endpoint="/v1/*")
    assert found(verdict) == []
    assert [(part.pool, part.first_line, part.row_count) for part in verdict.slices] == [
        ("text", 1, 2),
        ("image", 2, 1),
        ("speech", 3, 1),
        ("video", 4, 1),
        ("upkeep", 5, 2),
    ]
    assert [part.lines and list(part.lines) for part in verdict.slices] == [[1, 7], *[None] * 4]


def test_a_batch_of_one_endpoint_takes_no_other() -> None:
    rows = jsonl(*MIXED[:2])
    assert found(validate(rows)) == [(2, "url_mismatch", "url")]
    assert found(validate(jsonl(row("a", url="/v1/*")), endpoint="/v1/*")) == [
        (1, "invalid_url", "url")
    ]
    assert found(validate(rows.replace(b'"i"', b'"s"'), endpoint="/v1/*")) == [
        (2, "model_not_found", "model")
    ]


def test_a_graph_that_cannot_be_planned_is_a_bad_line() -> None:
    body = {"model": "nobody", "product": "soap"}
    too_many = {
        "model": "m",
        "product": "soap",
        "variants": 16,
        "languages": ["en", "de"],
        "audiences": [{"name": str(n)} for n in range(100)],
    }
    rows = jsonl(
        row("a", url=CAMPAIGNS, body=body),
        row("b", url=CAMPAIGNS, body={"model": "m", "product": "soap", "image_model": "s"}),
        row("c", url=CAMPAIGNS, body=too_many),
        row("d", url=VIDEOS, body={"model": "c", "prompt": "x.", "speech_model": "nobody"}),
    )
    assert found(validate(rows, endpoint="/v1/*", max_line_bytes=100_000)) == [
        (1, "model_not_found", "model"),
        (2, "model_not_found", "image_model"),
        (3, "invalid_request", "audiences"),
        (4, "model_not_found", "speech_model"),
    ]


def test_slices_of_graphs_are_small() -> None:
    rows = [row(str(n), url=CAMPAIGNS, body=MIXED[5]["body"]) for n in range(80)]
    verdict = validate(jsonl(*rows), endpoint=CAMPAIGNS)
    assert [part.row_count for part in verdict.slices] == [32, 32, 16]


def test_slices_hold_few_pictures_in_base64() -> None:
    body = {"model": "i", "prompt": "x", "n": 10, "steps": 1}
    embedded = body | {"response_format": "b64_json"}
    counts = []
    for asked in (body, embedded):
        rows = [row(str(n), url=IMAGES, body=asked) for n in range(20)]
        slices = validate(jsonl(*rows), endpoint=IMAGES).slices
        counts.append([part.row_count for part in slices])
    assert counts == [[20], [6, 6, 6, 2]]


@pytest.mark.parametrize(
    ("endpoint", "body", "seconds"),
    [
        (IMAGES, {"model": "i", "prompt": "x", "n": 3}, 6.0),
        (IMAGES, {"model": "i", "prompt": "x", "steps": 40}, 4.0),
        (IMAGES, {"model": "i", "prompt": "x", "quality": "low"}, 1.0),
        (SPEECH, {"model": "s", "input": "x" * 3_000}, 10.0),
        (SPEECH, {"model": "s", "input": "x" * 3_000, "speed": 2.0}, 5.0),
        (VIDEOS, {"model": "v", "prompt": "x"}, 40.0),
        (VIDEOS, {"model": "v", "prompt": "x", "seconds": "8"}, 80.0),
        (COMPOSITIONS, {"model": "c", "scenes": [{"seconds": 4.0}, {"seconds": 2.0}]}, 3.0),
    ],
)
def test_media_cost_what_their_engines_take(
    endpoint: str, body: dict[str, Any], seconds: float
) -> None:
    from shared.specs import parse_body

    spec = parse_body(endpoint, body)
    assert expected_seconds(spec, MODELS[spec.model]) == pytest.approx(seconds)
