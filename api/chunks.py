"""A text as OpenAI's clients read it while it is generated: chunks of JSON, as Server-Sent Events.

Pure: pieces of text go in, lines for the wire come out. What was said is never taken back, so a
text that goes on otherwise than it began is an error.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from api.chunk_logprobs import Diverged, Logprobs, Tokens
from api.rendering import compact
from shared.db.streams import Piece

__all__ = ["DONE", "Diverged", "Narrator"]

DONE = "data: [DONE]\n\n"


class Narrator:
    """One stream: what was said of each choice, and how to say more."""

    def __init__(
        self,
        *,
        chat: bool,
        name: str,
        model: str,
        created: int,
        leads: Sequence[str],
        with_usage: bool,
    ) -> None:
        """``leads`` are the beginnings that are known of each choice: its prompt, where that is
        repeated. ``created`` is in Unix seconds."""
        self._chat = chat
        self._said = [""] * len(leads)
        self._tokens = [Tokens() for _ in leads]
        self._leads = list(leads)
        self._head: dict[str, Any] = {
            "id": f"{'chatcmpl' if chat else 'cmpl'}-{name}",
            "object": "chat.completion.chunk" if chat else "text_completion",
            "created": created,
            "model": model,
        }
        self._usage: dict[str, Any] = {"usage": None} if with_usage else {}

    def opening(self) -> str:
        """What is known before anything is generated: who speaks, and the prompt's echo."""
        said = ""
        for index, lead in enumerate(self._leads):
            if self._chat:
                said += self._chunk(index, {"role": "assistant", "content": ""})
            said += self._go_on(index, 0, lead)
        return said

    def say(self, pieces: Sequence[Piece]) -> str:
        """What is new in these pieces; empty where they repeat what was said, or leave something
        out: then only ``close`` can go on. Raises Diverged."""
        return "".join(
            self._go_on(choice, at, text, first, logprobs)
            for choice, at, text, first, logprobs in pieces
            if choice < len(self._said) and at <= len(self._said[choice])
        )

    def close(self, result: Mapping[str, Any]) -> str:
        """The rest of every choice and why it ended, then the usage. ``result`` is the complete
        body. Raises Diverged."""
        if fingerprint := result.get("system_fingerprint"):
            self._head["system_fingerprint"] = fingerprint
        said = ""
        for choice in result["choices"]:
            index = choice["index"]
            whole = (choice["message"]["content"] if self._chat else choice["text"]) or ""
            if not whole.startswith(self._said[index]):
                raise Diverged
            said += self._go_on(index, 0, whole, 0, choice.get("logprobs"))
            said += self._chunk(index, self._last_words(choice), choice["finish_reason"])
        if self._usage:
            said += _event({**self._head, "choices": [], "usage": result["usage"]})
        return said + DONE

    def fail(self, _row: object, error: Mapping[str, Any]) -> str:
        """The job has ended without a result. ``error`` is OpenAI's object."""
        return self.broken(error)

    def broken(self, error: Mapping[str, Any]) -> str:
        """The stream's last word when it can't go on; clients raise it."""
        return _event({"error": error})

    def _last_words(self, choice: Mapping[str, Any]) -> dict[str, str] | str:
        if not self._chat:
            return ""
        refusal = choice["message"].get("refusal")
        return {"refusal": refusal} if refusal else {}

    def _go_on(
        self, index: int, at: int, text: str, first: int = 0, logprobs: Logprobs | None = None
    ) -> str:
        said = self._said[index]
        known = said[at : at + len(text)]
        if not text.startswith(known):
            raise Diverged
        new, marks = text[len(known) :], self._tokens[index].fresh(first, logprobs)
        if not new and marks is None:
            return ""
        self._said[index] = said + new
        return self._chunk(index, {"content": new} if self._chat else new, marks=marks)

    def _chunk(
        self,
        index: int,
        said: dict[str, str] | str,
        reason: str | None = None,
        *,
        marks: Logprobs | None = None,
    ) -> str:
        choice = {
            "index": index,
            ("delta" if self._chat else "text"): said,
            "logprobs": marks,
            "finish_reason": reason,
        }
        return _event({**self._head, "choices": [choice], **self._usage})


def _event(body: Mapping[str, Any]) -> str:
    return f"data: {compact(body)}\n\n"
