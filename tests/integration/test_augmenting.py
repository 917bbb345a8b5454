"""Training data from a few examples, on the real work of upkeep."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from shared.productions.words import jaccard
from shared.specs.fine_tuning import FineTuningSpec
from tests.integration.api_case import MODEL
from tests.integration.production_case import PRODUCTIONS, Asked, Press, Said, press_fixture
from worker.tuning.data.examine import examine
from worker.tuning.data.examined import Examined
from worker.tuning.data.source import Source

__all__ = ["press_fixture"]

TICKETS = (Path(__file__).parents[2] / "examples" / "augment" / "tickets.jsonl").read_bytes()
SEEDS = [json.loads(line) for line in TICKETS.splitlines()]
TEXTS: list[str] = [seed["text"] for seed in SEEDS]
ROWS = 24
COUNTED = {"delivery": 8, "refund": 8, "product": 8}
CHATS = b"".join(
    json.dumps(
        {
            "messages": [
                {"role": "system", "content": "You are a gardener."},
                {"role": "user", "content": f"When do I sow plant number {number}?"},
                {"role": "assistant", "content": f"Sow it {number} weeks after the last frost."},
            ]
        }
    ).encode()
    + b"\n"
    for number in range(4)
)


def template(task: dict[str, Any], **head: Any) -> str:
    lines = {"task": {"name": "augment", **task}, **head}
    return (
        "---\n" + "".join(f"{key}: {json.dumps(each)}\n" for key, each in lines.items()) + "---\n"
    )


def augment(press: Press, text: str, content: bytes = TICKETS, **changed: Any) -> str:
    name = changed.pop("name", "tickets.jsonl")
    return press.submit_production(text, content, name=name, **changed)


def writes(asked: Asked) -> str:
    """Four words that no other candidate and round has."""
    row, chance = asked.place[0], asked.body["seed"]
    return f"Ticket{row} says{chance} quite{chance} differently{row}"


def said_to(asked: Asked) -> str:
    return "\n".join(message["content"] for message in asked.body["messages"])


def lines_of(press: Press, production_id: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in press.output(production_id).splitlines()]


def examined(press: Press, production_id: str, recipe: Any) -> Examined:
    data = press.output(production_id)
    spec = FineTuningSpec(model="m", training_file="f")
    source = Source("train.jsonl", len(data), lambda: [data])
    return examine(recipe, spec, source, None, lambda: False)


def test_every_label_gets_what_was_asked_for(press: Press) -> None:
    production_id = augment(press, template({"rows": ROWS}))

    press.run(writes)

    seen, lines = press.see(production_id), lines_of(press, production_id)
    assert seen["status"] == "succeeded", seen
    assert Counter(line["label"] for line in lines) == COUNTED
    assert seen["summary"]["labels"] == {
        label: {"asked": count, "made": count} for label, count in COUNTED.items()
    }
    found = examined(press, production_id, "text_classification")
    assert (found.errors, found.warnings) == ([], [])
    assert (found.examples + found.validation_examples, found.labels) == (ROWS, COUNTED)
    for line in lines:
        about = line["metadata"]
        assert (about["synthetic"], about["production"]) == (True, production_id)
        assert about["model"] == MODEL
        shown = [SEEDS[number - 1] for number in about["example_lines"]]
        assert len(shown) == 4
        assert {seed["label"] for seed in shown} == {line["label"]}


def test_a_prompt_shows_its_examples_and_no_others(press: Press) -> None:
    production_id = augment(press, template({"rows": ROWS, "examples": 2}))

    press.run(writes)

    shown = {asked.place[0]: said_to(asked) for asked in press.asked}
    assert len(set(shown.values())) == ROWS
    for row, line in enumerate(lines_of(press, production_id), 1):
        there = [at for at, seed in enumerate(SEEDS, 1) if seed["text"] in shown[row]]
        assert sorted(there) == sorted(line["metadata"]["example_lines"])
    used = Counter(
        number
        for each in lines_of(press, production_id)
        for number in each["metadata"]["example_lines"]
    )
    assert set(used) == set(range(1, len(SEEDS) + 1))
    assert max(used.values()) - min(used.values()) <= 2


def test_copies_of_examples_and_of_one_another_are_written_again(press: Press) -> None:
    """In the first round the first row repeats an example of another label's, the second a line of
    its own, and the third says what the fourth says."""
    same = "The kettle in the kitchen has been broken since Monday"

    def writer(asked: Asked) -> str:
        row = asked.place[0]
        if asked.round or row > 4:
            return writes(asked)
        if row == 1:
            return next(text for text in TEXTS if text not in said_to(asked))
        if row == 2:
            return next(text for text in TEXTS if text in said_to(asked)) + " Right?"
        return same

    production_id = augment(press, template({"rows": ROWS}))
    press.run(writer)

    summary, lines = press.see(production_id)["summary"], lines_of(press, production_id)
    assert summary["refusals"] == {"copies_example": 1, "near_duplicates": 2}
    assert (summary["succeeded"], summary["regenerated"], summary["rounds"]) == (ROWS, 3, 2)
    texts = [line["text"] for line in lines] + [seed["text"] for seed in SEEDS]
    pairs = [(one, other) for at, one in enumerate(texts) for other in texts[:at]]
    assert max(jaccard(one, other, 3) for one, other in pairs) < 0.6


def test_what_a_model_does_not_deliver_is_told_by_label(press: Press) -> None:
    def writer(asked: Asked) -> str | Said:
        if "refund" in asked.prompt:
            return "One line\nand another"
        return Said(code="engine_crashed") if asked.place[0] == 3 else writes(asked)

    production_id = augment(press, template({"labels": {"product": 3, "refund": 2}}, retries=1))
    press.run(writer)

    summary = press.see(production_id)["summary"]
    assert summary["labels"] == {
        "product": {"asked": 3, "made": 2},
        "refund": {"asked": 2, "made": 0},
    }
    assert summary["rejected_by_gate"] == {"one_line": 2}
    assert summary["failed_by_code"] == {"engine_crashed": 1}
    assert summary["succeeded"] + summary["rejected"] + summary["failed"] == summary["lines"] == 5
    assert len(lines_of(press, production_id)) == 2


def test_chats_are_written_as_messages(press: Press) -> None:
    def writer(asked: Asked) -> str:
        said = writes(asked)
        if not asked.round and asked.place[0] == 2:
            return json.dumps({"user": "Why?", "assistant": "  "})
        return json.dumps({"user": f"Why {said}?", "assistant": f"Because {said}."})

    production_id = augment(
        press, template({"rows": 12, "form": "chat"}), CHATS, name="chats.jsonl"
    )
    press.run(writer)

    assert all("response_format" in asked.body for asked in press.asked)
    summary, lines = press.see(production_id)["summary"], lines_of(press, production_id)
    assert (summary["succeeded"], summary["refusals"]) == (12, {"training_format": 1})
    assert summary.get("labels") is None
    for line in lines:
        assert [turn["role"] for turn in line["messages"]] == ["system", "user", "assistant"]
        assert line["messages"][0]["content"] == "You are a gardener."
    found = examined(press, production_id, "supervised")
    assert (found.errors, found.format) == ([], "chat")


def test_bad_examples_are_named_as_a_training_names_them(press: Press) -> None:
    content = TICKETS + b'{"text": "no label"}\n{"text": 3, "label": "refund"}\nnothing\n'
    production_id = augment(press, template({"rows": ROWS}), content)

    press.run(writes)

    seen = press.see(production_id)
    assert (seen["status"], press.asked) == ("failed", [])
    assert [(line["line"], line["code"]) for line in seen["error"]["lines"]] == [
        (16, "missing_required_parameter"), (17, "invalid_request"), (18, "invalid_json_line"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("task", "content", "name", "said"),
    [
        ({"labels": {"refund": 3, "lost": 3}}, TICKETS, "a.jsonl", "label 'lost'"),
        ({"rows": 5, "form": "text"}, b"text\nhello\n", "a.csv", "these are JSONL"),
        ({"rows": 5, "form": "chat"}, b'{"text": "hello"}\n', "a.jsonl", "'messages'"),
        ({"rows": 5}, b"", "a.jsonl", "no examples"),
    ],
    ids=["unknown-label", "csv", "another-form", "empty"],
)
def test_examples_that_will_not_do_reject_the_production(
    press: Press, task: dict[str, Any], content: bytes, name: str, said: str
) -> None:
    if not content:
        content = b"\n"
    production_id = augment(press, template(task), content, name=name)

    press.run(writes)

    seen = press.see(production_id)
    assert (seen["status"], press.asked) == ("failed", [])
    assert said in json.dumps(seen["error"])


def test_a_preview_shows_rows_to_be_written(press: Press) -> None:
    body = {
        "template": template({"rows": ROWS, "language": "de"}),
        "data_file_id": press.data(TICKETS, "tickets.jsonl"),
        "model": MODEL,
        "rows": 3,
    }
    reply = press.post(f"{PRODUCTIONS}/preview", body)

    assert reply.status_code == 200, reply.json
    labels = [item["columns"]["label"] for item in reply.json["data"]]
    assert labels == ["delivery", "refund", "product"]
    prompt = reply.json["data"][0]["prompts"][0]["messages"][-1]["content"]
    assert 'the label "delivery" in German' in prompt


@pytest.mark.parametrize(
    ("changed", "param"),
    [
        ({"n": 2}, "n"),
        ({"output_format": "csv"}, "output_format"),
        ({"template": template({})}, "template.task.rows"),
        ({"template": template({"rows": 3, "labels": {"a": 0}})}, "template.task.rows"),
        ({"template": template({"rows": 3}, audiences=[{"name": "x"}])}, "template.audiences"),
    ],
    ids=["n", "output-format", "rows", "both", "audiences"],
)
def test_what_training_data_can_not_be_is_refused(
    press: Press, changed: dict[str, Any], param: str
) -> None:
    file = press.data(TICKETS, "tickets.jsonl")
    body = {"template": template({"rows": 3}), "data_file_id": file, "model": MODEL}
    reply = press.post(PRODUCTIONS, body | changed)

    assert (reply.status_code, reply.json["error"]["param"]) == (400, param), reply.json


def test_the_output_is_a_training_file(press: Press) -> None:
    """As it is, by its id."""
    production_id = augment(press, template({"rows": ROWS}))
    press.run(writes)

    body = {
        "model": MODEL,
        "training_file": press.see(production_id)["output_file_id"],
        "method": {"type": "text_classification"},
        "dry_run": True,
    }
    reply = press.post("/v1/fine_tuning/jobs", body)

    assert reply.status_code == 200, reply.json
    press.run(writes)
    job = press.get(f"/v1/fine_tuning/jobs/{reply.json['id']}").json
    assert job["status"] == "succeeded", job
