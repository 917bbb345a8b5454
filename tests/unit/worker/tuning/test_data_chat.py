"""Conversations, prompts, plain texts and preferences: every bad line by number and code."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from tests.unit.worker.tuning.data_case import (
    SMALL,
    chats,
    found,
    jsonl,
    judge,
    rows_of,
    source,
    with_line,
)
from worker.tuning.data.example import Example
from worker.tuning.data.formats import read_items


def message(role: str = "user", content: Any = "hello", **fields: Any) -> dict[str, Any]:
    return {"role": role, "content": content} | fields


REPLY = message("assistant", "hi")


# --- supervised ---------------------------------------------------------------------------------


def test_conversations_keep_roles_and_texts() -> None:
    parts = [{"type": "text", "text": "one "}, {"type": "text", "text": "two"}]
    row = {"messages": [message(content=parts), message("tool", "3"), REPLY | {"weight": 0}, REPLY]}
    (read,) = rows_of("supervised", jsonl([row]))
    assert read == {
        "messages": [message(content="one two"), message("tool", "3"), REPLY | {"weight": 0}, REPLY]
    }
    examined = judge("supervised", jsonl(chats(20)))
    assert (examined.bad_lines, examined.format) == (0, "chat")
    assert (examined.examples, examined.validation_examples, examined.held_out) == (18, 2, True)
    characters = sum(len("Answer briefly.") + 2 * len(str(n)) + 16 for n in range(20))
    assert examined.characters == characters
    assert examined.labels == {}


@pytest.mark.parametrize(
    ("messages", "code", "param"),
    [
        ("text", "invalid_request", "messages"),
        ([], "empty_content", "messages"),
        (["text"], "invalid_request", "messages[0]"),
        ([message("critic"), REPLY], "invalid_role", "messages[0]"),
        ([message(["user"]), REPLY], "invalid_role", "messages[0]"),  # type: ignore[arg-type]
        ([message(content=""), REPLY], "empty_content", "messages[0].content"),
        ([message(content=" \n"), REPLY], "empty_content", "messages[0].content"),
        ([message(content=None), REPLY], "invalid_request", "messages[0].content"),
        ([message(content=[]), REPLY], "empty_content", "messages[0].content"),
        (
            [message(content=[{"type": "image_url"}]), REPLY],
            "unsupported_content",
            "messages[0].content",
        ),
        ([{"role": "user"}, REPLY], "missing_required_parameter", "messages[0].content"),
        ([message(tool_calls=[]), REPLY], "unsupported_parameter", "messages[0].tool_calls"),
        ([message(weight=1), REPLY], "invalid_request", "messages[0].weight"),
        ([message(), REPLY | {"weight": 2}], "invalid_request", "messages[1].weight"),
        ([message(), REPLY | {"weight": 0}], "no_assistant_message", "messages"),
        ([message()], "no_assistant_message", "messages"),
        ([message(), REPLY, message()], "last_message_not_assistant", "messages"),
        ([message()] * 2_048 + [REPLY], "too_many_messages", "messages"),
    ],
)
def test_conversations_that_teach_nothing_are_named(messages: Any, code: str, param: str) -> None:
    line = json.dumps({"messages": messages}).encode()
    examined = judge(
        "supervised", with_line(chats(), line), limits=replace(SMALL, line_bytes=200_000)
    )
    assert found(examined) == [(3, code, param)]
    assert examined.bad_lines == 1


@pytest.mark.parametrize(
    ("line", "code", "param"),
    [
        (b'{"messages": [', "invalid_json_line", None),
        (b"[" * 3_000, "invalid_json_line", None),
        (b"[1]", "invalid_request", None),
        (b'{"messages": "\xff"}', "invalid_encoding", None),
        (b'{"messages": "\\ud800 "}', "invalid_json_line", None),
        (b'{"messages": NaN}', "invalid_json_line", None),
        (b'{"messages": "' + b"a" * 5_000 + b'"}', "line_too_long", None),
        (b'{"input": "a"}', "missing_required_parameter", "messages"),
        (b'{"messages": [], "tools": []}', "unsupported_parameter", "tools"),
        (b'{"prompt": "a"}', "missing_required_parameter", "completion"),
        (b'{"prompt": "a", "completion": ""}', "empty_content", "completion"),
        (b'{"prompt": 1, "completion": "b"}', "invalid_request", "prompt"),
        (b'{"prompt": "a", "completion": "b"}', "mixed_formats", None),
        (b'{"text": "a"}', "mixed_formats", None),
    ],
)
def test_lines_that_are_no_examples_are_named(line: bytes, code: str, param: str | None) -> None:
    assert found(judge("supervised", with_line(chats(), line))) == [(3, code, param)]


def test_prompts_and_texts_are_read_as_they_are() -> None:
    pair = {"prompt": "a ", "completion": " b"}
    assert rows_of("supervised", jsonl([pair])) == [pair]
    assert rows_of("supervised", jsonl([{"text": " a"}])) == [{"text": " a"}]


def test_paragraphs_of_a_plain_text_are_examples_with_their_first_line() -> None:
    text = b"\xef\xbb\xbfone\r\ntwo \r\n\r\n \r\n\nthree\n\n\nfour\nfive"
    items = list(read_items("supervised", source(text, "book.TXT", chunk=3), SMALL))
    assert [(item.line, item.row) for item in items if isinstance(item, Example)] == [
        (1, {"text": "one\ntwo"}),
        (6, {"text": "three"}),
        (9, {"text": "four\nfive"}),
    ]
    assert len(items) == 3


def test_a_bad_line_spoils_its_paragraph_alone() -> None:
    good = b"\n\n".join(b"paragraph %d" % number for number in range(10))
    text = b"one\n\xff\nthree\n\n" + good + b"\n\n" + b"long line\n" * 500 + b"\n\nlast"
    examined = judge("supervised", text, "book.txt")
    assert found(examined) == [(2, "invalid_encoding", None), (25, "line_too_long", None)]
    assert examined.examples + examined.validation_examples == 11


# --- preferences --------------------------------------------------------------------------------

OPENAI = {
    "input": {"messages": [message()]},
    "preferred_output": [REPLY],
    "non_preferred_output": [message("assistant", "no")],
}


def test_preferences_of_both_forms_become_messages() -> None:
    pairs = {"prompt": "hello", "chosen": "hi", "rejected": "no"}
    lists = {"prompt": [message()], "chosen": [REPLY], "rejected": "no"}
    read = {
        "prompt": [message()],
        "chosen": [REPLY],
        "rejected": [message("assistant", "no")],
    }
    assert rows_of("dpo", jsonl([OPENAI, pairs, lists])) == [read, read, read]


@pytest.mark.parametrize(
    ("change", "code", "param"),
    [
        ({"input": "hello"}, "invalid_request", "input"),
        ({"input": {}}, "missing_required_parameter", "messages"),
        ({"input": {"messages": [], "tools": []}}, "unsupported_parameter", "tools"),
        ({"input": {"messages": [REPLY]}}, "invalid_request", "input"),
        ({"preferred_output": []}, "empty_content", "preferred_output"),
        ({"preferred_output": [message()]}, "no_assistant_message", "preferred_output"),
        ({"preferred_output": [message(), REPLY]}, "invalid_role", "preferred_output"),
        ({"non_preferred_output": [REPLY]}, "identical_outputs", "non_preferred_output"),
        ({"chosen": "hi"}, "unsupported_parameter", "chosen"),
    ],
)
def test_preferences_that_prefer_nothing_are_named(
    change: dict[str, Any], code: str, param: str
) -> None:
    good = [OPENAI | {"input": {"messages": [message(content=str(n))]}} for n in range(10)]
    line = json.dumps(OPENAI | change).encode()
    assert found(judge("dpo", with_line(good, line))) == [(3, code, param)]
