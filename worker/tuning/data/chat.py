"""Supervised data: conversations, prompts with completions, or plain texts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from shared.lifecycle import BadLine
from worker.tuning.data.example import METADATA, Example, Item, Refused, check_fields, text_of
from worker.tuning.data.limits import DataLimits
from worker.tuning.data.lines import decoded, lines_of, objects_of
from worker.tuning.data.source import Source

ROLES = ("system", "developer", "user", "assistant", "tool")
CHAT, PROMPTS, TEXTS = "chat", "prompt_completion", "text"


def read_supervised(source: Source, limits: DataLimits) -> Iterator[Item]:
    """Examples of a ``.txt`` of paragraphs, or of JSONL whose lines all have the same form."""
    if source.suffix == ".txt":
        return read_paragraphs(source, limits)
    return read_jsonl(source, limits)


def read_jsonl(source: Source, limits: DataLimits) -> Iterator[Item]:
    form = None
    lines = lines_of(source.open_chunks(), max_bytes=limits.line_bytes)
    for found in objects_of(lines, limits.line_bytes):
        if isinstance(found, BadLine):
            yield found
            continue
        number, row = found
        try:
            example = _example(row, limits)
            form = form or example.form
            if example.form != form:
                message = f"the line is of the form '{example.form}', the file began with '{form}'"
                raise Refused("mixed_formats", message)
        except Refused as refusal:
            yield refusal.bad_line(number)
            continue
        example.line = number
        yield example


def _example(row: dict[str, Any], limits: DataLimits) -> Example:
    fields = tuple(row)
    if "messages" in row:
        check_fields(row, ("messages",), (METADATA,))
        messages = conversation(row["messages"], "messages", limits)
        check_ends_with_assistant(messages, "messages")
        return Example({"messages": messages}, CHAT, fields, characters(messages))
    if "prompt" in row or "completion" in row:
        check_fields(row, ("prompt", "completion"), (METADATA,))
        prompt = text_of(row["prompt"], "prompt")
        completion = text_of(row["completion"], "completion")
        both = {"prompt": prompt, "completion": completion}
        return Example(both, PROMPTS, fields, len(prompt) + len(completion))
    if "text" in row:
        check_fields(row, ("text",), (METADATA,))
        text = text_of(row["text"], "text")
        return Example({"text": text}, TEXTS, fields, len(text))
    message = "a line has 'messages', or 'prompt' and 'completion', or 'text'"
    raise Refused("missing_required_parameter", message, "messages")


def conversation(value: Any, param: str, limits: DataLimits) -> list[dict[str, Any]]:
    """Messages with their content as text. Raises Refused for the first that is none."""
    if not isinstance(value, list):
        raise Refused("invalid_request", f"'{param}' must be a list of messages", param)
    if not value:
        raise Refused("empty_content", f"'{param}' has no messages", param)
    if len(value) > limits.messages:
        message = f"'{param}' has over {limits.messages} messages"
        raise Refused("too_many_messages", message, param)
    return [_message(each, f"{param}[{place}]") for place, each in enumerate(value)]


def _message(value: Any, param: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise Refused("invalid_request", f"'{param}' must be an object", param)
    try:
        check_fields(value, ("role", "content"), ("weight",))
    except Refused as refusal:
        name = f"{param}.{refusal.param}"
        message = refusal.message.replace(f"'{refusal.param}'", f"'{name}'")
        raise Refused(refusal.code, message, name) from None
    role = value["role"]
    if role not in ROLES:
        raise Refused("invalid_role", f"'{param}.role' must be one of {', '.join(ROLES)}", param)
    turn = {"role": role, "content": _content(value["content"], f"{param}.content")}
    if "weight" in value:
        turn["weight"] = _weight(value["weight"], role, f"{param}.weight")
    return turn


def _content(value: Any, param: str) -> str:
    """A string, or a list of parts ``{"type": "text", "text": …}`` joined to one."""
    if not isinstance(value, list):
        return text_of(value, param)
    texts = []
    for place, part in enumerate(value):
        if not isinstance(part, dict) or part.get("type") != "text":
            message = f"'{param}[{place}]' must be a part of the type 'text'"
            raise Refused("unsupported_content", message, param)
        texts.append(text_of(part.get("text"), f"{param}[{place}].text"))
    return text_of("".join(texts), param)


def _weight(value: Any, role: str, param: str) -> int:
    if isinstance(value, bool) or value not in (0, 1) or role != "assistant":
        message = f"'{param}' is 0 or 1, and for messages of the assistant"
        raise Refused("invalid_request", message, param)
    return int(value)


def check_ends_with_assistant(messages: list[dict[str, Any]], param: str) -> None:
    if all(message["role"] != "assistant" for message in messages):
        message = f"'{param}' has no message of the assistant to learn from"
        raise Refused("no_assistant_message", message, param)
    if messages[-1]["role"] != "assistant":
        message = f"the last of '{param}' must be a message of the assistant"
        raise Refused("last_message_not_assistant", message, param)
    if not any(each.get("weight", 1) for each in messages if each["role"] == "assistant"):
        message = f"every message of the assistant in '{param}' has the weight 0"
        raise Refused("no_assistant_message", message, param)


def characters(messages: list[dict[str, Any]]) -> int:
    return sum(len(message["content"]) for message in messages)


def read_paragraphs(source: Source, limits: DataLimits) -> Iterator[Item]:
    """Paragraphs of a plain text, parted by blank lines, an example each."""
    parts: list[str] = []
    held, start, refused = 0, 1, False
    for line in lines_of(source.open_chunks(), max_bytes=limits.line_bytes):
        if line.text is not None and not line.text.strip():
            if parts:
                yield _paragraph(parts, start)
            parts, held, refused = [], 0, False
            continue
        if refused:  # the rest of a paragraph that was named already
            continue
        if not parts:
            start = line.number
        try:
            parts.append(decoded(line, limits.line_bytes).rstrip())
        except Refused as refusal:
            yield refusal.bad_line(line.number)
            parts, refused = [], True
        held += len(line.text or b"")
        if held > limits.line_bytes and not refused:
            message = f"the paragraph is longer than {limits.line_bytes} bytes"
            yield BadLine("line_too_long", message, start)
            parts, refused = [], True
    if parts:
        yield _paragraph(parts, start)


def _paragraph(parts: list[str], start: int) -> Example:
    text = "\n".join(parts)
    return Example({"text": text}, "paragraphs", ("text",), len(text), line=start)
