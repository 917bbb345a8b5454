"""Labelled texts and tagged sentences: tables, columns and JSONL, every bad line by number."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from tests.unit.worker.tuning.data_case import (
    SMALL,
    found,
    jsonl,
    judge,
    labelled,
    rows_of,
    source,
    with_line,
)
from worker.tuning.data.example import Example
from worker.tuning.data.formats import read_items

# --- text classification ------------------------------------------------------------------------


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_tables_are_read_whatever_their_delimiter_and_quotes(delimiter: str) -> None:
    lines = [
        delimiter.join(["id", "label", "text"]),
        delimiter.join(["1", "good", '"one\ntwo, ""three"" ; \t"']),
        delimiter.join(["2", "7", "four"]),
        "",
    ]
    table = "\r\n".join(lines).encode("utf-8-sig")
    items = list(read_items("text_classification", source(table, "a.CSV", chunk=4), SMALL))
    assert [(item.line, item.row) for item in items if isinstance(item, Example)] == [
        (2, {"label": "good", "text": 'one\ntwo, "three" ; \t'}),
        (4, {"label": "7", "text": "four"}),
    ]
    assert len(items) == 2


@pytest.mark.parametrize(
    ("record", "code", "param"),
    [
        (b"one", "invalid_csv", None),
        (b"one,good,more", "invalid_csv", None),
        (b'"one" two,good', "invalid_csv", None),
        (b",good", "empty_content", "text"),
        (b"one, ", "empty_content", "label"),
        (b"one," + b"l" * 300, "invalid_label", "label"),
        (b"\xff,good", "invalid_encoding", None),
        (b"o" * 5_000 + b",good", "line_too_long", None),
    ],
)
def test_bad_records_of_a_table_are_named(record: bytes, code: str, param: str | None) -> None:
    good = [b"text %d,%s" % (n, (b"good", b"bad")[n % 2]) for n in range(12)]
    table = b"\n".join([b"text,label", good[0], record, *good[1:]])
    examined = judge("text_classification", table, "data.csv")
    assert found(examined) == [(3, code, param)]


@pytest.mark.parametrize(
    ("table", "param"),
    [(b"text,kind\na,b\n", "label"), (b"label\na\n", "text"), (b"text,text,label\n", "text")],
)
def test_a_table_without_its_columns_is_one_error(table: bytes, param: str) -> None:
    (error,) = found(judge("text_classification", table, "data.csv"))
    assert error[0::2] == (1, param)


def test_an_open_quote_does_not_swallow_the_file_in_silence() -> None:
    good = b"".join(b"text %d,%d\n" % (n, n % 2) for n in range(20_000))
    limits = replace(SMALL, rows=100_000, line_bytes=2**20)
    data = b'text,label\n"open,1\n' + good
    examined = judge("text_classification", data, "data.csv", limits=limits)
    assert found(examined)[0][:2] == (2, "invalid_csv")


@pytest.mark.parametrize("label", [1.5, None, True, ["a"], {"a": 1}, "a\nb", "a\x00"])
def test_labels_are_printable_text_or_whole_numbers(label: Any) -> None:
    line = json.dumps({"text": "a", "label": label}).encode()
    examined = judge("text_classification", with_line(labelled(), line))
    assert found(examined) == [(3, "invalid_label", "label")]
    assert rows_of("text_classification", jsonl([{"text": "a", "label": 3}])) == [
        {"text": "a", "label": "3"}
    ]


# --- token classification -----------------------------------------------------------------------

CONLL = b"""-DOCSTART- -X- O O

Ada NNP I-NP B-PER
lives VBZ O O
in IN O O
New NNP I-NP B-LOC
York NNP I-NP I-LOC

She\tPRP\tO\tO
left VBD O
"""


def test_columns_are_sentences() -> None:
    assert rows_of("token_classification", CONLL, "a.conll") == [
        {
            "tokens": ["Ada", "lives", "in", "New", "York"],
            "tags": ["B-PER", "O", "O", "B-LOC", "I-LOC"],
        },
        {"tokens": ["She", "left"], "tags": ["O", "O"]},
    ]


def test_a_bad_token_spoils_its_sentence_and_each_is_named() -> None:
    text = b"one O\ntwo\n\xff O\n\n" + b"a B-X\nb O\n\n" * 12 + b"a\tB-X\n\tO\n"
    examined = judge("token_classification", text, "data.txt")
    assert found(examined) == [
        (2, "missing_tag", "tag"),
        (3, "invalid_encoding", None),
        (42, "empty_content", "tag"),
    ]
    assert examined.labels == {"B-X": 12, "O": 12}


def test_a_sentence_without_end_is_refused_once() -> None:
    text = b"a O\n" * 60 + b"\n" + b"b B-X\nc O\n\n" * 12
    examined = judge(
        "token_classification", text, "data.txt", limits=replace(SMALL, sentence_tokens=50)
    )
    assert found(examined) == [(51, "example_too_long", None)]


@pytest.mark.parametrize(
    ("row", "code", "param"),
    [
        ({"tokens": ["a", "b"], "tags": ["O"]}, "length_mismatch", "tags"),
        ({"tokens": [], "tags": []}, "empty_content", "tokens"),
        ({"tokens": ["a", " "], "tags": ["O", "O"]}, "empty_content", "tokens"),
        ({"tokens": ["a"], "tags": [1]}, "invalid_request", "tags"),
        ({"tokens": "a", "tags": ["O"]}, "invalid_request", "tokens"),
        ({"tokens": ["a"], "ner_tags": [1]}, "missing_required_parameter", "tags"),
    ],
)
def test_sentences_without_a_tag_for_each_token_are_named(
    row: dict[str, Any], code: str, param: str
) -> None:
    good = [{"tokens": ["Ada", "lives"], "tags": ["B-PER", "O"]}] * 12
    examined = judge("token_classification", with_line(good, json.dumps(row).encode()))
    assert found(examined) == [(3, code, param)]


def test_tags_that_continue_nothing_are_a_warning() -> None:
    tags = [["O", "I-LOC"], ["B-PER", "I-LOC"], ["I-LOC", "I-LOC"]]
    good = [["B-LOC", "I-LOC"], ["B-LOC", "O"]] * 6
    rows = [{"tokens": ["a", str(n)], "tags": each} for n, each in enumerate([*tags, *good])]
    examined = judge("token_classification", jsonl(rows))
    assert examined.bad_lines == 0
    assert examined.warnings == ["3 sentences have an I- tag without its B-"]


def test_a_record_of_a_table_has_an_end_however_many_lines_it_has() -> None:
    good = b"".join(b"text %d,%d\n" % (n, n % 2) for n in range(20))
    long = b'"a' + b'\n","a' * 2_000 + b'"\n'
    examined = judge("text_classification", b"text,label\n" + long + good, "data.csv")
    errors = found(examined)
    assert errors[0] == (2, "line_too_long", None)
    assert errors[1][0] is not None
    assert errors[1][0] < 1_100  # the rest is read as records again


def test_a_line_of_other_blanks_is_named() -> None:
    text = "a O\nb B-X\n\n" * 12 + "\u00a0\n\x1c\n"
    examined = judge("token_classification", text.encode(), "data.txt")
    assert found(examined) == [(37, "empty_content", "tag"), (38, "empty_content", "tag")]
