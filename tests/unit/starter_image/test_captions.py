"""Captions say the name; the vocabulary knows their words, and survives all others."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from transformers import CLIPTokenizer

from starter_image.captions import Captions, corpus, plural, with_article
from starter_image.vocabulary import build_tokenizer

NAMES = [
    "red heart",
    "up down arrow",
    "down up arrow",
    "fox",
    "cherry",
    "anchor",
    "1st place medal",
]


@pytest.fixture(scope="module")
def tokenizer() -> CLIPTokenizer:
    return build_tokenizer(corpus(NAMES), length=24)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("red heart", "red hearts"),
        ("fox", "foxes"),
        ("cherry", "cherries"),
        ("key", "keys"),
        ("glasses", "glasses"),
        ("keycap 1", "keycap 1"),
    ],
)
def test_plurals(name: str, expected: str) -> None:
    assert plural(name) == expected


def test_articles() -> None:
    assert [with_article("anchor"), with_article("red heart")] == ["an anchor", "a red heart"]


def test_every_caption_names_its_icon() -> None:
    captions, source = Captions(NAMES), random.Random(3)

    for name in NAMES * 100:
        caption = captions.draw(name, source)
        said = set(caption.replace(",", "").split())
        assert all({word, plural(word)} & said for word in name.split()), caption


def test_words_keep_their_places_where_another_icon_has_the_same_words() -> None:
    captions, source = Captions(NAMES), random.Random(3)

    drawn = [captions.draw("up down arrow", source) for _ in range(400)]

    assert all("up down arrow" in caption for caption in drawn)


def test_captions_vary_and_are_repeatable() -> None:
    captions = Captions(NAMES)

    first = [captions.draw("fox", random.Random(seed)) for seed in range(50)]

    assert first == [captions.draw("fox", random.Random(seed)) for seed in range(50)]
    assert first.count("fox") > 20
    assert len(set(first)) > 8


def test_each_word_of_a_caption_is_one_token(tokenizer: CLIPTokenizer) -> None:
    for text in corpus(NAMES):
        for word in text.split():
            if word.isalpha():
                assert len(tokenizer.tokenize(word)) == 1, word


@pytest.mark.parametrize("text", ["Zyxwvut qqq", "Ünïcode 画像 🦊 — €5!!", "", "\x00\n"])
def test_unknown_text_falls_into_pieces(tokenizer: CLIPTokenizer, text: str) -> None:
    tokens = tokenizer(text, padding="max_length", truncation=True).input_ids

    assert len(tokens) == 24
    assert tokens[0] == tokenizer.bos_token_id
    assert tokenizer.eos_token_id in tokens
    assert max(tokens) < len(tokenizer)


def test_a_long_prompt_is_cut(tokenizer: CLIPTokenizer) -> None:
    tokens = tokenizer("a red heart " * 50, padding="max_length", truncation=True).input_ids

    assert len(tokens) == 24
    assert tokens[-1] == tokenizer.eos_token_id


def test_it_is_the_same_after_saving(tokenizer: CLIPTokenizer, tmp_path: Path) -> None:
    tokenizer.save_pretrained(tmp_path)

    loaded = CLIPTokenizer.from_pretrained(tmp_path)

    text = "An ad for Red Hearts, zyx 5%"
    assert loaded(text).input_ids == tokenizer(text).input_ids
    assert loaded.model_max_length == 24
