"""Texts cut into sentences, and long sentences into clauses and words."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.engines.speech.sentences import Part, cut


def texts(text: str, longest: int = 240) -> list[str]:
    return [part.text for part in cut(text, longest)]


@pytest.mark.parametrize(
    "text",
    [
        "Dr. Smith met Mr. and Mrs. Jones.",
        "The U.S. Army and the U.K. navy met.",
        "J. K. Rowling and J. R. R. Tolkien wrote books.",
        "It costs 3.50 dollars, e.g. in Berlin, i.e. abroad.",
        "See Fig. 3 and No. 5, vol. 2, pp. 3-5.",
        "Come on Nov. 22 at 10 a.m. sharp.",
        "Well... perhaps not.",
        '"Stop!" he said.',
        "Acme Inc. and Sons Ltd. merged.",
        "What? no.",
        "Ph.D. students vs. Prof. Lee",
    ],
)
def test_stays_whole(text: str) -> None:
    assert texts(text) == [text]


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("One. Two! Three?", ["One.", "Two!", "Three?"]),
        ("He lives in the U.S. The end.", ["He lives in the U.S.", "The end."]),
        ("We left at 9 p.m. It was dark.", ["We left at 9 p.m.", "It was dark."]),
        ("Nuts, figs, etc. They rot.", ["Nuts, figs, etc.", "They rot."]),
        ("He said no. It was over.", ["He said no.", "It was over."]),
        ('"Go!" "Where?" She left.', ['"Go!"', '"Where?"', "She left."]),
        ("I waited… Nobody came.", ["I waited…", "Nobody came."]),
        ("Really?! Yes.", ["Really?!", "Yes."]),
        ("(It rained.) We stayed.", ["(It rained.)", "We stayed."]),
        ("It is 3.5. It was 4.", ["It is 3.5.", "It was 4."]),
        ("今日は。明日も！", ["今日は。", "明日も！"]),
        ("no end", ["no end"]),
        ("  \n ", []),
    ],
)
def test_is_cut(text: str, sentences: list[str]) -> None:
    assert texts(text) == sentences


def test_what_follows_a_piece() -> None:
    parts = cut("One. Two.\n\nThree, which is long, goes on.", 20)
    assert parts == [
        Part("One.", "sentence"),
        Part("Two.", "paragraph"),
        Part("Three, which is", "clause"),
        Part("long, goes on.", "end"),
    ]


def test_wrapped_lines_are_put_together_and_short_ones_are_not() -> None:
    wrapped = (
        "This is a line that was wrapped by an editor at eighty columns, and\n"
        "Goes on here. The next\nSentence"
    )
    assert texts(wrapped)[0].endswith("and Goes on here.")
    assert texts("Shopping\n- two eggs\n- milk") == ["Shopping", "- two eggs", "- milk"]
    assert texts("Title\nThe text begins.") == ["Title", "The text begins."]


def test_long_sentences_are_cut_at_clauses_then_words_then_anywhere() -> None:
    clauses = ", ".join(["the winter was cold and long"] * 12)
    assert all(part.endswith(",") for part in texts(clauses, 100)[:-1])
    words = " ".join(["word"] * 60)
    assert {part.replace("word", "").strip() for part in texts(words, 50)} == {""}
    assert texts("x" * 25, 10) == ["x" * 10, "x" * 10, "x" * 5]


@given(st.text(max_size=400), st.integers(1, 60))
def test_nothing_is_lost_and_nothing_is_too_long(text: str, longest: int) -> None:
    parts = cut(text, longest)
    assert all(0 < len(part.text) <= longest for part in parts)
    assert "".join("".join(part.text.split()) for part in parts) == "".join(text.split())
    assert [part.after == "end" for part in parts] == [False] * (len(parts) - 1) + [True] * bool(
        parts
    )


TEXTS_OF_NOTHING = ["." * 100_000, "a" + "!" * 99_998 + "b", "a" + " " * 99_998 + "b"]


@pytest.mark.parametrize("text", TEXTS_OF_NOTHING, ids=["dots", "marks", "spaces"])
def test_the_longest_text_of_nothing_is_cut_in_linear_time(text: str) -> None:
    begun = time.process_time()
    parts = cut(text, 240)
    # A hundredth of this when it is linear, ten times this and more when each mark begins anew.
    assert time.process_time() - begun < 5
    assert "".join(part.text for part in parts).count(".") == text.count(".")
