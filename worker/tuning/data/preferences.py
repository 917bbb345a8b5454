"""Preference data: a prompt, a better and a worse answer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from shared.lifecycle import BadLine
from worker.tuning.data.chat import characters, check_ends_with_assistant, conversation
from worker.tuning.data.example import Example, Item, Refused, check_fields, text_of
from worker.tuning.data.limits import DataLimits
from worker.tuning.data.lines import lines_of, objects_of
from worker.tuning.data.source import Source

Messages = list[dict[str, Any]]
PAIRS, OPENAI = "prompt_chosen_rejected", "preference"


def read_preferences(source: Source, limits: DataLimits) -> Iterator[Item]:
    """Lines ``{"input": {"messages"}, "preferred_output", "non_preferred_output"}`` or
    ``{"prompt", "chosen", "rejected"}``, whose values are texts or lists of messages."""
    lines = lines_of(source.open_chunks(), max_bytes=limits.line_bytes)
    for found in objects_of(lines, limits.line_bytes):
        if isinstance(found, BadLine):
            yield found
            continue
        number, row = found
        try:
            example = _example(row, limits)
        except Refused as refusal:
            yield refusal.bad_line(number)
            continue
        example.line = number
        yield example


def _example(row: dict[str, Any], limits: DataLimits) -> Example:
    if "input" in row or "preferred_output" in row:
        names, form = ("input", "preferred_output", "non_preferred_output"), OPENAI
        check_fields(row, names)
        given = row["input"]
        if not isinstance(given, dict):
            raise Refused("invalid_request", "'input' must be an object", "input")
        check_fields(given, ("messages",))
        prompt = conversation(given["messages"], "input.messages", limits)
    else:
        names, form = ("prompt", "chosen", "rejected"), PAIRS
        check_fields(row, names)
        prompt = _messages(row["prompt"], "prompt", "user", limits)
    chosen = _answer(row[names[1]], names[1], limits)
    rejected = _answer(row[names[2]], names[2], limits)
    if prompt[-1]["role"] == "assistant":
        message = f"'{names[0]}' must not end with a message of the assistant"
        raise Refused("invalid_request", message, names[0])
    if chosen == rejected:
        message = f"'{names[1]}' and '{names[2]}' are the same"
        raise Refused("identical_outputs", message, names[2])
    messages = {"prompt": prompt, "chosen": chosen, "rejected": rejected}
    return Example(messages, form, tuple(row), sum(map(characters, messages.values())))


def _messages(value: Any, param: str, role: str, limits: DataLimits) -> Messages:
    if isinstance(value, str):
        return [{"role": role, "content": text_of(value, param)}]
    return conversation(value, param, limits)


def _answer(value: Any, param: str, limits: DataLimits) -> Messages:
    messages = _messages(value, param, "assistant", limits)
    check_ends_with_assistant(messages, param)
    if any(message["role"] not in ("assistant", "tool") for message in messages):
        message = f"'{param}' is the assistant's answer: it has no other roles"
        raise Refused("invalid_role", message, param)
    return messages
