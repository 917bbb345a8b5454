"""Productions from their template to their output, on the real work of upkeep."""

from __future__ import annotations

import json

import pytest

from tests.integration.production_case import PLAIN, Asked, Press, Said, echo, press_fixture

__all__ = ["press_fixture"]


def headed(head: str, body: str = PLAIN) -> str:
    return f"---\n{head}\n---\n{body}"


CHAIN = headed("steps: [{name: draft, prompt: 'Draft {{ name }}'}]", "Polish {{ draft }}")


def check_sums(press: Press, production_id: str) -> None:
    """The counts of an ended production add up, and are those of its lines."""
    seen = press.see(production_id)
    summary, lines = seen["summary"], press.lines(production_id)
    by_status = dict.fromkeys(("succeeded", "rejected", "failed", "not_found"), 0)
    for line in lines:
        by_status[line["status"]] += 1
    assert {name: summary[name] for name in by_status} == by_status
    assert sum(by_status.values()) == len(lines) == summary["lines"] == seen["lines"]
    assert sum(summary["rejected_by_gate"].values()) == summary["rejected"]
    assert sum(summary["failed_by_code"].values()) == summary["failed"]
    assert summary["duplicates_removed"] == summary["refusals"].get("near_duplicates", 0)


def test_every_row_gets_its_text(press: Press) -> None:
    production_id = press.submit_production(PLAIN)

    press.run()

    seen = press.see(production_id)
    assert seen["status"] == "succeeded", seen
    assert [line["output"] for line in press.lines(production_id)] == [
        "1.0.0.0 in 0: Praise the red chair.",
        "2.0.0.0 in 0: Praise the blue table.",
        "3.0.0.0 in 0: Praise the green lamp.",
    ]
    assert (seen["progress"], seen["kept"], seen["lines"]) == (1, 3, 3)
    assert seen["usage"] == {"input_tokens": 9, "output_tokens": 15, "total_tokens": 24}
    check_sums(press, production_id)


def test_candidates_have_seeds_of_their_own_and_lines_in_order(press: Press) -> None:
    production_id = press.submit_production(PLAIN, n=3)

    press.run()

    lines = press.lines(production_id)
    assert [(line["name"], line["candidate"]) for line in lines] == [
        (name, number) for name in ("chair", "table", "lamp") for number in "123"
    ]
    assert len({asked.body["seed"] for asked in press.asked}) == 9
    check_sums(press, production_id)


def test_what_a_gate_refuses_is_asked_again_with_another_seed(press: Press) -> None:
    """The table passes in its second round, the lamp never does."""

    def writer(asked: Asked) -> str:
        row, good = asked.place[0], "A fine thing to have"
        return {1: good, 2: good if asked.round else "No", 3: "No"}[row]

    production_id = press.submit_production(headed("gates: {min_words: 3}\nretries: 2"))
    press.run(writer)

    chair, table, lamp = press.lines(production_id)
    assert (chair["status"], table["status"], lamp["status"]) == (
        "succeeded",
        "succeeded",
        "rejected",
    )
    assert (lamp["output"], lamp["reason"].split(":")[0]) == ("", "min_words")
    assert [(asked.round, asked.place[0]) for asked in press.asked] == [
        (0, 3), (0, 2), (0, 1), (1, 3), (1, 2), (2, 3),
    ]  # fmt: skip
    assert len({asked.body["seed"] for asked in press.asked}) == 6
    summary = press.see(production_id)["summary"]
    assert summary["rejected_by_gate"] == {"min_words": 1}
    assert summary["refusals"] == {"min_words": 4}
    assert (summary["rounds"], summary["regenerated"]) == (3, 3)
    check_sums(press, production_id)


def test_a_chain_uses_the_texts_before_it(press: Press) -> None:
    template = headed(
        "steps:\n  - {name: draft, prompt: 'Draft {{ name }}'}\n"
        "  - {name: note, prompt: 'Note on {{ draft }}'}",
        "Polish {{ draft }} with {{ note }} for the {{ name }}",
    )
    production_id = press.submit_production(template)

    press.run(lambda asked: f"<{asked.prompt}>")

    first = press.lines(production_id)[0]
    assert first["output"] == "<Polish <Draft chair> with <Note on <Draft chair>> for the chair>"
    assert press.see(production_id)["phases"] == 3
    check_sums(press, production_id)


def test_a_step_that_fails_its_schema_is_a_try(press: Press) -> None:
    """The whole chain begins again, for this candidate alone."""
    template = headed(
        "retries: 1\nsteps:\n  - name: facts\n    prompt: 'Facts on {{ name }}'\n"
        "    schema: {type: object, required: [a]}",
        "Use {{ facts }}",
    )

    def writer(asked: Asked) -> str:
        if asked.phase:
            return "done"
        return "{}" if asked.place[0] == 2 and not asked.round else '{"a": 1}'

    production_id = press.submit_production(template)
    press.run(writer)

    assert {line["status"] for line in press.lines(production_id)} == {"succeeded"}
    assert press.see(production_id)["summary"]["refusals"] == {"schema": 1}
    check_sums(press, production_id)


def test_audiences_multiply_the_rows(press: Press) -> None:
    template = headed(
        "audiences: [{name: kids}, {name: adults}]", "{{ name }} for {{ audience.name }}"
    )
    production_id = press.submit_production(template, n=2)

    press.run()

    lines = press.lines(production_id)
    assert [(line["name"], line["audience"], line["candidate"]) for line in lines[:5]] == [
        ("chair", "kids", "1"),
        ("chair", "kids", "2"),
        ("chair", "adults", "1"),
        ("chair", "adults", "2"),
        ("table", "kids", "1"),
    ]
    assert lines[2]["output"].endswith("chair for adults")
    check_sums(press, production_id)


def test_audiences_of_a_file(press: Press) -> None:
    people = press.data(b"name,tone\nkids,merry\nadults,dry\n", "people.csv")
    template = headed(f"audiences: {{file: {people}}}", "{{ name }}, {{ audience.tone }}")

    production_id = press.submit_production(template)
    press.run()

    assert {line["audience"] for line in press.lines(production_id)} == {"kids", "adults"}
    assert press.lines(production_id)[1]["output"].endswith("chair, dry")


def test_the_best_candidate_is_kept(press: Press) -> None:
    """One line an item; what fails the gates is not chosen, whatever its length."""

    def writer(asked: Asked) -> str:
        row, _, _, candidate = asked.place
        return ["a b c", "a b c d e", "forbidden words of great length"][candidate] + f" {row}"

    template = headed("n: 3\nbest_of: {rule: longest}\ngates: {forbidden: [forbidden]}")
    production_id = press.submit_production(template)
    press.run(writer)

    lines = press.lines(production_id)
    assert [line["output"] for line in lines] == ["a b c d e 1", "a b c d e 2", "a b c d e 3"]
    assert {asked.round for asked in press.asked} == {0}
    check_sums(press, production_id)


def test_an_item_without_a_good_candidate_is_tried_again(press: Press) -> None:
    def writer(asked: Asked) -> str:
        return "no" if asked.place[0] == 2 and asked.round == 0 else "a fine text"

    template = headed("n: 2\nbest_of: {rule: first}\ngates: {min_words: 2}\nretries: 1")
    production_id = press.submit_production(template)
    press.run(writer)

    assert [line["status"] for line in press.lines(production_id)] == ["succeeded"] * 3
    again = [asked.place for asked in press.asked if asked.round == 1]
    assert sorted(again) == [(2, 0, 0, 0), (2, 0, 0, 1)]
    check_sums(press, production_id)


def test_near_duplicates_are_found_over_all_rounds(press: Press) -> None:
    """Everybody says the same first; the first keeps it. In the next round one says it again."""
    common = "the same old words as everybody else says about everything"

    def writer(asked: Asked) -> str:
        if asked.round == 0 or asked.place[0] == 3:
            return common
        return "something that nobody has said of any table before this one"

    template = headed("gates: {near_duplicates: 0.8}\nretries: 2")
    production_id = press.submit_production(template)
    press.run(writer)

    lines = press.lines(production_id)
    assert [line["status"] for line in lines] == ["succeeded", "succeeded", "rejected"]
    summary = press.see(production_id)["summary"]
    assert summary["rejected_by_gate"] == {"near_duplicates": 1}
    assert summary["duplicates_removed"] == 4
    check_sums(press, production_id)


def test_best_of_falls_back_when_the_best_is_a_near_duplicate(press: Press) -> None:
    shared = "a long text that every single row of the data would love to have"

    def writer(asked: Asked) -> str:
        row, _, _, candidate = asked.place
        return shared if candidate == 0 else f"own words {row * 7} of row {row}"

    template = headed("n: 2\nbest_of: {rule: longest}\ngates: {near_duplicates: 0.9}\nretries: 0")
    production_id = press.submit_production(template)
    press.run(writer)

    assert [line["output"] for line in press.lines(production_id)] == [
        shared,
        "own words 14 of row 2",
        "own words 21 of row 3",
    ]
    check_sums(press, production_id)


def test_an_error_of_a_row_is_its_own(press: Press) -> None:
    def writer(asked: Asked) -> str | Said:
        return Said(code="engine_crashed") if asked.place[0] == 2 else echo(asked)

    production_id = press.submit_production(headed("retries: 2"))
    press.run(writer)

    lines = press.lines(production_id)
    assert [line["status"] for line in lines] == ["succeeded", "failed", "succeeded"]
    assert lines[1]["reason"].startswith("engine_crashed")
    assert press.see(production_id)["status"] == "succeeded"
    check_sums(press, production_id)


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_other_formats(press: Press, kind: str) -> None:
    rows = b'{"name": "chair", "price": 3}\n{"name": "lamp", "price": 4}\n'
    production_id = press.submit_production(
        "Sell {{ name }} for {{ price }}", rows, name="data.jsonl", output_format=kind
    )
    press.run()

    data = press.output(production_id)
    if kind == "parquet":
        assert (data[:4], data[-4:]) == (b"PAR1", b"PAR1")
        return
    lines = [json.loads(line) for line in data.splitlines()]
    assert [(line["price"], line["status"]) for line in lines] == [(3, "succeeded")] * 1 + [
        (4, "succeeded")
    ]


def test_a_texts_own_table_may_be_parquet(press: Press) -> None:
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    sink = pa.BufferOutputStream()
    parquet.write_table(pa.table({"name": ["chair", "lamp"], "colour": ["red", "blue"]}), sink)
    data = sink.getvalue().to_pybytes()

    production_id = press.submit_production(PLAIN, data, name="data.parquet")
    press.run()

    assert [line["name"] for line in press.lines(production_id)] == ["chair", "lamp"]


def test_structured_output_is_asked_for_and_judged(press: Press) -> None:
    template = headed("retries: 1\nschema: {type: object, required: [title]}")

    def writer(asked: Asked) -> str | Said:
        assert asked.body["response_format"]["type"] == "json_schema"
        if asked.place[0] == 1 and not asked.round:
            return Said('{"title": "cut', finish_reason="length")
        return json.dumps({"title": f"t {asked.place[0]}"})

    production_id = press.submit_production(template)
    press.run(writer)

    assert [json.loads(line["output"]) for line in press.lines(production_id)] == [
        {"title": f"t {row}"} for row in (1, 2, 3)
    ]
    assert press.see(production_id)["summary"]["refusals"] == {"unfinished": 1}


def test_a_text_that_was_cut_is_written_again_where_it_has_to_end(press: Press) -> None:
    def writer(asked: Asked) -> str | Said:
        if asked.place[0] == 1 and not asked.round:
            return Said("A chair that is", finish_reason="length")
        return "A chair that stands."

    asked = ("gates: {finished: true}", "gates: {finished: false}")
    made = [press.submit_production(headed(f"retries: 1\n{gates}")) for gates in asked]
    press.run(writer)

    assert [press.see(one)["summary"]["refusals"] for one in made] == [{"unfinished": 1}, {}]
    outputs = [[line["output"] for line in press.lines(one)] for one in made]
    assert outputs[0] == ["A chair that stands."] * 3
    assert outputs[1] == ["A chair that is", *["A chair that stands."] * 2]
