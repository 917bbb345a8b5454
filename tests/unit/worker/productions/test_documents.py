"""Documents are read as headings and paragraphs, and cut into passages that fit a model."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.upkeep.productions.documents_blocks import (
    READERS,
    Block,
    html_blocks,
    markdown_blocks,
    text_blocks,
)
from worker.upkeep.productions.documents_cutting import (
    MOST_HEADING,
    MOST_WEIGHT,
    OVERLAP_WEIGHT,
    passages_of,
    weight_of,
)

LONGEST_HEADINGS = 6 * (MOST_HEADING + 3)


def test_text_has_paragraphs_alone() -> None:
    assert list(text_blocks("# one\ntwo\n\n \nthree\n")) == [
        Block(0, "# one\ntwo"),
        Block(0, "three"),
    ]


def test_markdown_has_headings_but_not_in_fences() -> None:
    text = "Top\n===\n# A #\nb\nc\n\n```sh\n# no\n\n---\n```\n### D\n- e\n\nSub\n---\n#no\n"
    assert list(markdown_blocks(text)) == [
        Block(1, "Top"),
        Block(1, "A"),
        Block(0, "b\nc"),
        Block(0, "```sh\n# no\n\n---\n```"),
        Block(3, "D"),
        Block(0, "- e"),
        Block(2, "Sub"),
        Block(0, "#no"),
    ]


def test_html_is_what_a_reader_sees() -> None:
    text = (
        "<!doctype html><html><head><title>no</title></head><body class='x'><h2>A &amp; B</h2>"
        "<p>Some <b>bold</b>\n words<br/>here<!-- <p>no --><script>if (a<b) no()</script>"
        "<ul><li>one<li>two</ul><table><tr><td>1</td><td>2</td></tr></table>3 < 4 &lt; 5"
    )
    assert list(html_blocks(text)) == [
        Block(2, "A & B"),
        Block(0, "Some bold words"),
        Block(0, "here"),
        Block(0, "- one"),
        Block(0, "- two"),
        Block(0, "1 2"),
        Block(0, "3 < 4 < 5"),
    ]


@pytest.mark.parametrize("text", ["<", "<!--", "<a", "</", "<script>x", "&#", "<svg><svg>", "<?x"])
def test_broken_html_ends(text: str) -> None:
    list(html_blocks(text * 3))


def test_passages_have_the_headings_above_them() -> None:
    text = "# Shop\nOne.\n## Returns\nTwo.\n### Costs\nThree.\n## Shipping\nFour.\n# Legal\nFive."
    assert list(passages_of(markdown_blocks(text))) == [
        "Shop\nOne.",
        "Shop > Returns\nTwo.",
        "Shop > Returns > Costs\nThree.",
        "Shop > Shipping\nFour.",
        "Legal\nFive.",
    ]


def test_passages_overlap_by_sentences() -> None:
    sentences = [f"This is the sentence number {number:03}." for number in range(100)]
    passages = list(passages_of([Block(0, " ".join(sentences))]))

    assert len(passages) > 4
    for before, after in pairwise(passages):
        shared = [one for one in sentences if one in before and one in after]
        assert shared
        assert before.endswith(" ".join(shared))
        assert after.startswith(" ".join(shared))
        assert weight_of(" ".join(shared)) <= OVERLAP_WEIGHT
    assert {one for one in sentences if any(one in each for each in passages)} == set(sentences)


def test_dense_scripts_get_shorter_passages() -> None:
    passages = list(passages_of([Block(0, "漢字です。" * 400)]))

    assert max(map(len, passages)) <= MOST_WEIGHT // 2
    assert sum(map(len, passages)) >= 2_000


@given(
    text=st.text(alphabet=" \n\t.!#<>/=-`&;aZ漢é0pbh1script", max_size=3_000),
    reader=st.sampled_from(sorted(READERS)),
)
def test_any_text_makes_passages_that_fit(text: str, reader: str) -> None:
    passages = list(passages_of(READERS[reader](text)))

    assert passages == list(passages_of(READERS[reader](text)))
    for passage in passages:
        assert passage.strip()
        assert weight_of(passage) <= MOST_WEIGHT + LONGEST_HEADINGS * 3


def test_long_words_are_cut_and_none_is_lost() -> None:
    word = "".join(chr(ord("a") + number % 26) for number in range(5_000))
    passages = list(passages_of([Block(0, word)]))

    assert max(map(weight_of, passages)) <= MOST_WEIGHT
    assert "".join(passages) == word
