"""What is left of the raw answers of models."""

from __future__ import annotations

import time
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.plans.texts import (
    FILTERS,
    at_most,
    first_line,
    first_sentence,
    no_full_stop,
    plain,
    sentences,
    whole_sentences,
)


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("Bright nights", "Bright nights"),
        ('"Bright nights"', "Bright nights"),
        ("„Helle Nächte“", "Helle Nächte"),
        ("« Nuits claires »", "Nuits claires"),
        ("“Bright nights", "Bright nights"),
        ('"Bright" nights are "ours"', '"Bright" nights are "ours"'),
        ("Headline: Bright nights", "Bright nights"),
        ("**Headline:** Bright nights", "Bright nights"),
        ("Call to action: Try it", "Try it"),
        ("Advertising: the art of light", "Advertising: the art of light"),
        ("Aurora: light that cares", "Aurora: light that cares"),
        ("# Bright *nights*", "Bright nights"),
        ("- Bright nights\n- Dark days", "Bright nights\nDark days"),
        ("1. Bright nights", "Bright nights"),
        ("2 lamps for 1", "2 lamps for 1"),
        ("Sure, here is a headline:\n\nBright nights", "Bright nights"),
        ("Here's your headline:\nBright nights", "Bright nights"),
        ("Sure-footed shoes", "Sure-footed shoes"),
        ("```\nBright nights\n```", "Bright nights"),
        ("Bright nights<|im_end|></s>", "Bright nights"),
        ("See [our shop](http://x.example)", "See our shop"),
        ("5 * 3 * 2 metres", "5 * 3 * 2 metres"),
        ("snake_case_name", "snake_case_name"),
        ("Bright\x00\x1b nights", "Bright nights"),
        ("", ""),
        ("**", ""),
        ('""', ""),
        ("  \n ", ""),
    ],
)
def test_plain_takes_away_what_is_not_the_text(raw: str, clean: str) -> None:
    assert plain(raw) == clean


def test_the_first_line_is_one_with_words_on_it() -> None:
    assert first_line('\n"..."\n"Title: Bright"\nmore') == "Bright"
    assert first_line('""\n--') == ""


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("One. Two! Three? Four", ["One.", "Two!", "Three?", "Four"]),
        ("Dr. Who came. He left.", ["Dr. Who came.", "He left."]),
        ("It costs 3.50 euros. Cheap!", ["It costs 3.50 euros.", "Cheap!"]),
        ('She said "Go." Then left.', ['She said "Go."', "Then left."]),
        ("夜が明るい。楽しい！", ["夜が明るい。", "楽しい！"]),
        ("One\nline.\n\nNext one.", ["One line.", "Next one."]),
        ("", []),
    ],
)
def test_sentences(text: str, parts: list[str]) -> None:
    assert sentences(text) == parts


def test_a_repeated_and_a_broken_off_sentence_go() -> None:
    text = "A lamp for you. A lamp for you! It glows. It is made of"
    assert whole_sentences(text) == "A lamp for you. It glows."
    assert whole_sentences("It is made of") == "It is made of"


def test_headlines_lose_a_full_stop_and_keep_other_ends() -> None:
    assert [no_full_stop(text) for text in ("Go.", "Go!", "Go…", "Go...", "明るい。")] == [
        "Go", "Go!", "Go…", "Go...", "明るい",
    ]  # fmt: skip
    assert first_sentence("Go now. Or later.") == "Go now."


def test_long_texts_are_cut_between_words() -> None:
    assert at_most("short", 5) == "short"
    assert at_most("The lamp that makes your evening", 20) == "The lamp that makes…"
    assert at_most("x" * 50, 10) == "x" * 9 + "…"


@given(st.text(max_size=300), st.integers(1, 80))
@settings(deadline=None)
def test_filters_only_take_away(text: str, limit: int) -> None:
    assert len(at_most(text, limit)) <= limit
    words = sum(map(str.isalnum, unicodedata.normalize("NFC", text)))
    for cleaned in FILTERS.values():
        assert sum(map(str.isalnum, cleaned(text))) <= words


@pytest.mark.parametrize("unit", ["\n", "\n ", "_", "[", "*a", "Dr. ", "title "])
def test_texts_of_nothing_are_read_in_linear_time(unit: str) -> None:
    text = "title" + unit * (30_000 // len(unit)) + "x"
    begun = time.process_time()
    for cleaned in FILTERS.values():
        cleaned(text)
    # A second is much for what is linear; what was not took up to half a minute.
    assert time.process_time() - begun < 10
