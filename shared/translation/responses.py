"""Responses: into chat completions, and from them. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from shared.ids import derived_id
from shared.specs.responses import ResponseSpec

Object = dict[str, Any]

SHOWN = (
    "instructions", "previous_response_id", "max_output_tokens", "temperature", "top_p", "metadata",
    "background", "user", "text", "top_logprobs",
)  # fmt: skip
"""Members of the body that a response repeats."""

_PLAIN_TEXT: Object = {"type": "text"}
_DEFAULTS: Object = {
    "temperature": 1.0,
    "top_p": 1.0,
    "metadata": {},
    "background": False,
    "top_logprobs": 0,
}
_PLAIN: Object = {
    "parallel_tool_calls": False,
    "tool_choice": "none",
    "tools": [],
    "store": True,
    "truncation": "disabled",
}
"""Members that are the same in every response here; clients want to read them."""

CUT = (
    r'^\{"id"."[a-z0-9_]+","object"."response","created_at".[0-9]+,'
    '"completed_at".null,"status"."incomplete",'
)
"""How a response that was cut begins as compact JSON: a regular expression that Python and Postgres
read alike. Postgres looks into no JSON that holds an escaped NUL, which a model may have said."""

ENGINE_PARAMS = {
    "messages": "input",
    "max_completion_tokens": "max_output_tokens",
    "response_format": "text.format",
    "logprobs": "include",
}
"""What an engine complains about, by what the caller called it."""


# --- the question ---------------------------------------------------------------------------------


def chat_body(spec: ResponseSpec) -> Object:
    """The chat completion that answers ``spec``."""
    turns = [{"role": item.role, "content": item.text} for item in spec.input]
    if spec.instructions is not None:
        turns.insert(0, {"role": "system", "content": spec.instructions})
    body: Object = {
        "model": spec.model,
        "messages": turns,
        "temperature": spec.temperature,
        "top_p": spec.top_p,
    }
    if spec.max_output_tokens is not None:
        body["max_completion_tokens"] = spec.max_output_tokens
    if spec.alternatives is not None:
        body |= {"logprobs": True, "top_logprobs": spec.alternatives}
    if spec.stream:
        body["stream"] = True
    if spec.text is not None and spec.text.format is not None:
        body["response_format"] = spec.text.format.for_chat()
    return body


def turns_of(asked: Any) -> list[Object]:
    """The turns of a validated ``input``, as short as they can be written."""
    if isinstance(asked, str):
        return [{"role": "user", "content": asked}]
    return [{"role": item["role"], "content": _text_of(item["content"])} for item in asked]


def turn_of(answer: Mapping[str, Any]) -> Object:
    """What a response that has an answer adds to its conversation."""
    parts = [part for item in answer["output"] for part in item["content"]]
    said = "".join(part["text"] for part in parts if part["type"] == "output_text")
    return {"role": "assistant", "content": said}


def items_of(response_id: str, asked: Any) -> list[Object]:
    """The items that a response was made of, in their order."""
    return [_item(response_id, place, turn) for place, turn in enumerate(turns_of(asked))]


def _text_of(content: Any) -> str:
    return content if isinstance(content, str) else "".join(part["text"] for part in content)


def _item(response_id: str, place: int, turn: Object) -> Object:
    said = turn["role"] == "assistant"
    part: Object = {"type": "output_text" if said else "input_text", "text": turn["content"]}
    return {
        "id": derived_id("msg_", response_id, f"input-{place}"),
        "type": "message",
        "role": turn["role"],
        "status": "completed",
        "content": [part | {"annotations": []} if said else part],
    }


# --- the answer -----------------------------------------------------------------------------------


def message_id(response_id: str) -> str:
    """The id of the message that answers."""
    return derived_id("msg_", response_id, "output")


def response(
    response_id: str,
    *,
    created_at: int,
    model: str,
    status: str,
    asked: Mapping[str, Any],
    error: Object | None = None,
) -> Object:
    """A response without an answer (yet). ``asked`` has those members of the body that are
    ``SHOWN``, or more; ``created_at`` in Unix seconds."""
    given = {name: asked.get(name) for name in SHOWN}
    shown = {name: _DEFAULTS.get(name) if value is None else value for name, value in given.items()}
    shown["text"] = {"format": (given["text"] or {}).get("format") or _PLAIN_TEXT}
    return {
        "id": response_id,
        "object": "response",
        "created_at": created_at,
        "completed_at": None,
        "status": status,
        "model": model,
        "error": error,
        "incomplete_details": None,
        "output": [],
        "usage": None,
        **shown,
        **_PLAIN,
    }


def answered(
    response_id: str, *, created_at: int, asked: Mapping[str, Any], chat: Mapping[str, Any]
) -> Object:
    """The response that an engine's ``chat`` completion is."""
    choice = chat["choices"][0]
    cut = choice["finish_reason"] == "length"
    status = "incomplete" if cut else "completed"
    shown = response(
        response_id, created_at=created_at, model=chat["model"], status=status, asked=asked
    )
    return shown | {
        "completed_at": None if cut else max(created_at, int(chat["created"])),
        "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
        "output": [_message(response_id, status, choice)],
        "usage": _usage(chat["usage"]),
    }


def _message(response_id: str, status: str, choice: Mapping[str, Any]) -> Object:
    """What is only said to be unfinished keeps its text; an answer that is finished and still not
    what its schema asks is replaced by the reason."""
    said, logprobs = choice["message"], choice.get("logprobs")
    part: Object = {"type": "output_text", "text": said["content"], "annotations": []}
    if logprobs is not None:
        part["logprobs"] = logprobs["content"]
    if status == "completed" and said.get("refusal"):
        part = {"type": "refusal", "refusal": said["refusal"]}
    return {
        "id": message_id(response_id),
        "type": "message",
        "role": "assistant",
        "status": status,
        "content": [part],
    }


def _usage(counted: Mapping[str, int]) -> Object:
    return {
        "input_tokens": counted["prompt_tokens"],
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": counted["completion_tokens"],
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": counted["total_tokens"],
    }
