"""Server-Sent Events, as far as the plant sends them: messages with an id, a name and JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from pressrun.api_client import Json

DONE = "[DONE]"


class Message(NamedTuple):
    """``name`` is ``message`` unless the server called it otherwise; without data it is the end."""

    name: str
    id: str | None
    data: Json | None


def messages(lines: Iterable[str]) -> Iterator[Message]:
    """Ends after the end that the server told, or with ``lines``. Whatever can't be read is passed
    over, as comments and heartbeats are."""
    fields: dict[str, str] = {}
    for line in lines:
        if line:
            name, _, value = line.partition(":")
            if name:
                fields[name] = value.removeprefix(" ")
            continue
        message = _message(fields)
        fields = {}
        if message is not None:
            yield message
            if message.data is None:
                return


def _message(fields: dict[str, str]) -> Message | None:
    data = fields.get("data")
    if data is None:
        return None
    name, event_id = fields.get("event", "message"), fields.get("id")
    if data == DONE:
        return Message(name, event_id, None)
    try:
        document = json.loads(data)
    except ValueError:
        return None
    return Message(name, event_id, document) if isinstance(document, dict) else None
