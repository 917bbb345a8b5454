"""Gates: what they refuse, and in which words."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.productions.gates import Gates, Refusal, cited_sources
from shared.productions.template import parse_template
from shared.productions.words import jaccard, shingles, words_of
from worker.upkeep.productions.language import language_of

ENGLISH = "This warm blanket is made of wool and keeps you comfortable all winter long."
GERMAN = "Diese warme Decke ist aus Wolle und hält Sie den ganzen Winter lang angenehm warm."


def gates(rules: str, more: str = "") -> Gates:
    template = parse_template(f"---\ngates: {{{rules}}}\n{more}\n---\n{{{{ name }}}}")
    return Gates(template, language_of)


def refused(rules: str, text: str, name: str = "Lamp") -> str | None:
    refusal = gates(rules).judge(text, {"name": name})
    return None if refusal is None else refusal.gate


@pytest.mark.parametrize(
    ("rules", "text", "gate"),
    [
        ("", "x", None),
        ("", " \n", "empty"),
        ("min_words: 3", "one two", "min_words"),
        ("min_words: 3", "one two three", None),
        ("max_words: 2", "one two three", "max_words"),
        ("max_words: 2", "don't well-known", None),
        ("max_words: 3", "我喜欢茶", "max_words"),
        ("min_chars: 5", " abc  ", "min_chars"),
        ("max_chars: 5", "abcdef", "max_chars"),
        ("required: [Lamp]", "a lamp.", None),
        ("required: [Lamp]", "a lampshade", "required"),
        ("required: ['{{ name }}']", "The LAMP!", None),
        ("required: ['{{ name }}']", "The mug", "required"),
        ("forbidden: [art]", "a party", None),
        ("forbidden: [art]", "modern art.", "forbidden"),
        ("forbidden: ['best  price']", "the Best\nprice ever", "forbidden"),
        ("forbidden: [a]", "aaaa " * 100_000, None),
        ("required: [a]", "aaaa " * 100_000 + "a", None),
        ("forbidden: [ab]", "abc ab-d", "forbidden"),
        ("forbidden: ['!']", "Buy now!", "forbidden"),
        ("forbidden: ['C++']", "in c++, too", "forbidden"),
        ("forbidden: ['茶']", "我喜欢茶叶", "forbidden"),
        ("language: en", ENGLISH, None),
        ("language: de", GERMAN, None),
        ("language: en", GERMAN, "language"),
        ("language: de", "OK", None),
    ],
)
def test_gates(rules: str, text: str, gate: str | None) -> None:
    assert refused(rules, text) == gate


def test_a_phrase_that_is_empty_for_a_row_asks_for_nothing() -> None:
    assert refused("required: ['{{ name }}']", "The mug", name="") is None
    assert refused("forbidden: ['{{ name }}']", "The mug", name="") is None


def test_the_reason_is_a_sentence() -> None:
    refusal = gates("max_words: 2").judge("one two three", {"name": "x"})
    assert refusal == Refusal("max_words", "3 words, at most 2 are wanted")
    assert refusal.reason == "max_words: 3 words, at most 2 are wanted"


def test_a_schema_comes_first_and_the_others_look_at_its_texts() -> None:
    judge = Gates(
        parse_template(
            "---\nschema:\n  type: object\n  required: [title, tags]\n"
            "  properties: {title: {type: string, maxLength: 20}, tags: {type: array}}\n"
            "gates: {max_words: 4, required: ['{{ name }}']}\n---\n{{ name }}"
        ),
        language_of,
    )
    row = {"name": "Lamp"}
    assert judge.judge('{"title": "A Lamp", "tags": ["new"]}', row) is None
    for text, gate, said in (
        ("A Lamp", "schema", "not valid JSON"),
        ('{"title": "A Lamp"}', "schema", '"tags" is a required property'),
        ('{"title": 3, "tags": []}', "schema", "title: "),
        ('{"title": "A Lamp", "tags": [NaN]}', "schema", "NaN is no JSON number"),
        ('{"title": "A", "title": "Lamp", "tags": []}', "schema", "twice"),
        ("[" * 100_000, "schema", "JSON"),
        ('{"title": "A", "tags": ' + "[" * 300 + "]" * 300 + "}", "schema", "deep"),
        ('{"title": "\\ud800", "tags": []}', "schema", "UTF-16"),
        ('{"title": "A Lamp", "tags": ["is", "a", "light"]}', "max_words", "5 words"),
        ('{"title": "title tags", "tags": []}', "required", "'Lamp'"),
    ):
        refusal = judge.judge(text, row)
        assert refusal is not None
        assert refusal.gate == gate
        assert said in refusal.message


def test_citations() -> None:
    judge = gates("cites_sources: true", "documents: {files: [f], query: q}")
    row = {"name": "x"}
    assert judge.judge("So it is [1], and [2].", row, sources=["a", "b"]) is None
    for text in ("So it is.", "So it is [3].", "So it is [0] [1]."):
        refusal = judge.judge(text, row, sources=["a", "b"])
        assert refusal is not None
        assert refusal.gate == "cites_sources"
    assert cited_sources("[2] and [1][2]") == [1, 2]


def test_numbers_that_nobody_gave() -> None:
    judge = gates("known_numbers: true", "documents: {files: [f], query: q}")
    row = {"name": "Lamp 3", "price": "1,563.00", "sizes": [40, 2.5], "built": None}
    audience, sources = {"name": "people over 65"}, ["It costs 80,000 euros."]
    for text in (
        "Lamp 3 costs 1563 euros, or 1.563,00, in 40 and 2.5 [1].",
        "No number at all.",
        "Over 65? It costs 80.000 euros [1].",
    ):
        assert judge.judge(text, row, audience=audience, sources=sources) is None
    for text, number in (
        ("Lamp 4.", "4"),
        ("It costs 1,563.50.", "1,563.50"),
        ("Lamp 3 holds 25 litres, [1].", "25"),
        ("Lamp 3 since 0.", "0"),
    ):
        refusal = judge.judge(text, row, audience=audience, sources=sources)
        assert refusal is not None
        assert refusal.reason == f"known_numbers: {number} is not in what was given"
    assert gates("known_numbers: true").judge("As [1] says.", row) is not None


@given(st.text(max_size=200))
def test_any_text_is_judged(text: str) -> None:
    judge = gates(
        "min_words: 1, max_chars: 150, forbidden: [a, '-'], known_numbers: true, language: en"
    )
    refusal = judge.judge(text, {"name": "x"})
    assert refusal is None or refusal.message
    assert shingles(text, 3)
    assert jaccard(text, text, 3) == 1
    assert all(word.strip() for word in words_of(text))
