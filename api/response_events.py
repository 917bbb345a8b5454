"""A response as OpenAI's clients follow it: typed and numbered Server-Sent Events.

Pure: pieces of text go in, lines for the wire come out. A number says where in the response its
event belongs, whoever tells it and in however many pieces: the four events before the text have the
numbers 0 to 3, a delta has 3 and as many more as there are characters of the text up to its end. So
whoever comes back with a number goes on exactly there, at any process.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from api.chunk_logprobs import Beyond, Diverged, Logprobs, Tokens
from api.rendering import Object, compact
from shared.db.jobs import JobRow
from shared.db.streams import Piece
from shared.translation.responses import message_id

_CREATED, _IN_PROGRESS, _ITEM, _PART = range(4)
_AT = {"output_index": 0}
_IN = _AT | {"content_index": 0}


class ResponseNarrator:
    """One stream of one response: what was said of it, and how to say more."""

    def __init__(
        self, created: Object, *, of_job: Callable[[JobRow], Object], after: int = -1
    ) -> None:
        """``created`` is the response as it was accepted; ``of_job`` describes it once its job has
        ended otherwise than well. Events up to the number ``after`` are known already."""
        self._created = created
        self._of_job = of_job
        self._after = after
        self._known = max(0, after - _PART)
        """How many characters of the text are."""
        self._last = -1
        self._said = ""
        self._tokens, self._beyond = Tokens(), Beyond(self._known)
        self._item = {"item_id": message_id(created["id"])}

    def opening(self) -> str:
        """That it was accepted; and that it is being answered, where somebody waits for it."""
        said = self._event("response.created", _CREATED, response=self._created)
        if self._created["status"] == "in_progress":
            said += self._in_progress()
        return said

    def say(self, pieces: Sequence[Piece]) -> str:
        """What is new in these pieces, as ``chunks.Narrator`` has it. Raises Diverged."""
        return "".join(
            self._go_on(at, text, first, logprobs)
            for choice, at, text, first, logprobs in pieces
            if choice == 0 and at <= len(self._said)
        )

    def close(self, result: Mapping[str, Any]) -> str:
        """The rest of the text and all that ends with it. ``result`` is the whole response. Raises
        Diverged."""
        (item,) = result["output"]
        (part,) = item["content"]
        at = self._item | _IN
        if part["type"] == "refusal":  # it stands in place of a text that nobody can know any more
            said, end = self._begun(), max(self._last, self._after, _PART)
            done = {"type": "response.refusal.done", "refusal": part["refusal"]}
        else:
            logprobs = part.get("logprobs", [])
            said, end = self._rest(part["text"], logprobs), _PART + len(part["text"])
            done = {"type": "response.output_text.done", "text": part["text"]}
            done["logprobs"] = _short(logprobs)
        said += self._event(done.pop("type"), end + 1, **at, **done)
        said += self._event("response.content_part.done", end + 2, **at, part=part)
        said += self._event("response.output_item.done", end + 3, **_AT, item=item)
        return said + self._event(f"response.{result['status']}", end + 4, response=dict(result))

    def _rest(self, text: str, logprobs: Sequence[Object]) -> str:
        if not text.startswith(self._said):
            raise Diverged
        return self._begun() + self._go_on(0, text, 0, {"content": logprobs})

    def fail(self, row: JobRow, _error: Object) -> str:
        """The job has ended without an answer."""
        number = max(self._last, self._after) + 1
        return self._event("response.failed", number, response=self._of_job(row))

    def broken(self, error: Object) -> str:
        """The stream can't go on, whatever becomes of the job. It has the number of the event
        before it, so that who comes back with that misses nothing."""
        told = {name: error[name] for name in ("code", "message", "param")}
        return _line("error", max(self._last, self._after, _CREATED), told)

    def _in_progress(self) -> str:
        response = self._created | {"status": "in_progress"}
        return self._event("response.in_progress", _IN_PROGRESS, response=response)

    def _begun(self) -> str:
        """All that comes before the text, but for what was told already."""
        said = self._in_progress() if self._last < _IN_PROGRESS else ""
        if self._last < _ITEM:
            item = {
                "id": self._item["item_id"],
                "type": "message",
                "role": "assistant",
                "status": "in_progress",
                "content": [],
            }
            said += self._event("response.output_item.added", _ITEM, **_AT, item=item)
            part = {"type": "output_text", "text": "", "annotations": []}
            said += self._event(
                "response.content_part.added", _PART, **self._item, **_IN, part=part
            )
        return said

    def _go_on(self, at: int, text: str, first: int, logprobs: Logprobs | None) -> str:
        known = self._said[at : at + len(text)]
        if not text.startswith(known):
            raise Diverged
        if len(text) == len(known):
            return ""
        fresh = self._tokens.fresh(first, logprobs) or {"content": []}
        marks = _short(self._beyond.of(fresh["content"]))
        said = self._begun()
        self._said += text[len(known) :]
        delta = self._said[max(self._known, at + len(known)) :]
        number = _PART + len(self._said)
        at_text = self._item | _IN
        return said + self._event(
            "response.output_text.delta", number, **at_text, delta=delta, logprobs=marks
        )

    def _event(self, kind: str, number: int, **members: Any) -> str:
        """Nothing, if it is known."""
        self._last = number
        return "" if number <= self._after else _line(kind, number, members)


def _line(kind: str, number: int, members: Object) -> str:
    body = {"type": kind, "sequence_number": number, **members}
    return f"event: {kind}\ndata: {compact(body)}\n\n"


def _short(entries: Sequence[Mapping[str, Any]]) -> list[Object]:
    """Tokens as events have them: without their bytes, which the whole answer has."""
    return [
        {
            "token": entry["token"],
            "logprob": entry["logprob"],
            "top_logprobs": [
                {"token": one["token"], "logprob": one["logprob"]} for one in entry["top_logprobs"]
            ],
        }
        for entry in entries
    ]
