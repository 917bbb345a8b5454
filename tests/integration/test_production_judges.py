"""The best of an item's candidates by a classifier, also of several models'."""

from __future__ import annotations

import pytest

from tests.integration.api_case import MODEL
from tests.integration.lookup_case import SECOND, TASTE, Library, every, library_fixture
from tests.integration.production_case import PRODUCTIONS, Asked, Said
from tests.integration.test_productions import check_sums, headed

__all__ = ["library_fixture"]

JUDGED = f"best_of: {{model: {TASTE}, label: good}}"
TEXTS = ["a first try", "the second try", "and the third"]


def by_candidate(asked: Asked) -> str:
    return f"{TEXTS[asked.place[3]]} of model {asked.place[2]} in round {asked.round}"


def test_the_text_with_the_highest_score_is_kept(library: Library) -> None:
    production_id = library.submit_production(headed(f"n: 3\n{JUDGED}"))

    library.run(every(by_candidate, lambda text: 0.9 if "second" in text else 0.4))

    lines = library.lines(production_id)
    assert {line["output"] for line in lines} == {"the second try of model 0 in round 0"}
    assert {line["candidate"] for line in lines} == {"1"}
    assert library.see(production_id)["phases"] == 2
    check_sums(library, production_id)


def test_of_two_that_are_as_good_the_earlier_is_kept(library: Library) -> None:
    production_id = library.submit_production(headed(f"n: 3\n{JUDGED}"))

    library.run(every(by_candidate, lambda text: 0.4 if "first" in text else 0.7))

    assert {line["output"] for line in library.lines(production_id)} == {
        "the second try of model 0 in round 0"
    }


@pytest.mark.parametrize(
    ("rule", "model", "number"),
    [
        (JUDGED, SECOND, 1),
        ("best_of: {rule: longest}", SECOND, 1),
        ("best_of: {rule: first}", MODEL, 0),
    ],
)
def test_several_models_compete(library: Library, rule: str, model: str, number: int) -> None:
    template = headed(f"models: ['{MODEL}', '{SECOND}']\nn: 2\n{rule}")
    production_id = library.submit_production(template, model=None)

    def writer(asked: Asked) -> str:
        assert asked.body["model"] == (MODEL, SECOND)[asked.place[2]]
        return by_candidate(asked) + " and more" * asked.place[2]

    library.run(every(writer, lambda text: 0.9 if "model 1" in text else 0.1))

    lines = library.lines(production_id)
    assert {line["model"] for line in lines} == {model}
    assert all(f"of model {number}" in line["output"] for line in lines)
    assert library.see(production_id)["summary"]["candidates"] == 12
    check_sums(library, production_id)


def test_only_texts_that_passed_their_gates_are_scored(library: Library) -> None:
    """The table has none in its first round; in its second it has scores of its own."""
    template = headed(f"n: 2\nretries: 1\n{JUDGED}\ngates: {{forbidden: [first]}}")
    production_id = library.submit_production(template)

    def writer(asked: Asked) -> str:
        is_lost = asked.place[0] == 2 and not asked.round
        return "a first try" if is_lost or not asked.place[3] else by_candidate(asked)

    library.run(every(writer, lambda text: 0.5))

    scored = [one for one in library.asked if "top_k" in one.body]
    assert [(one.round, one.place[0]) for one in scored] == [(0, 3), (0, 1), (1, 2)]
    assert [line["output"] for line in library.lines(production_id)] == [
        f"the second try of model 0 in round {number}" for number in (0, 1, 0)
    ]
    check_sums(library, production_id)


def test_a_label_that_there_is_not_is_named(library: Library) -> None:
    template = headed(f"n: 2\nbest_of: {{model: {TASTE}, label: splendid}}")
    production_id = library.submit_production(template)

    library.run(every())

    for line in library.lines(production_id):
        assert line["reason"].startswith("label_not_found: ")
        assert "'bad', 'good'" in line["reason"]
    check_sums(library, production_id)


def test_a_text_that_can_not_be_scored_does_not_win(library: Library) -> None:
    production_id = library.submit_production(headed(f"n: 2\n{JUDGED}"))

    def answer(asked: Asked) -> str | Said:
        is_first = "top_k" in asked.body and not asked.place[3]
        return Said(code="engine_error") if is_first else every(by_candidate)(asked)

    library.run(answer)

    assert {line["output"] for line in library.lines(production_id)} == {
        "the second try of model 0 in round 0"
    }
    check_sums(library, production_id)


def test_cancelled_before_they_are_scored(library: Library) -> None:
    """What passed its gates is kept; the first of several."""
    production_id = library.submit_production(headed(f"n: 2\n{JUDGED}"))
    while library.see(production_id)["phase"] == 0:
        assert library.work(every(by_candidate))
    assert library.post(f"{PRODUCTIONS}/{production_id}/cancel").status_code == 202
    library.run(every(by_candidate))

    assert library.see(production_id)["status"] == "cancelled"
    assert [line["output"] for line in library.lines(production_id)] == [
        "a first try of model 0 in round 0"
    ] * 3
    check_sums(library, production_id)


def test_a_writer_is_no_classifier(library: Library) -> None:
    body = {
        "template": headed(f"n: 2\nbest_of: {{model: '{MODEL}', label: good}}"),
        "data_file_id": library.data(),
        "model": MODEL,
    }
    reply = library.post(PRODUCTIONS, body)

    assert (reply.status_code, reply.json["error"]["param"]) == (404, "template.best_of.model")
