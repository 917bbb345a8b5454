"""Text to tokens and back: a tokenizer and what ends a generation."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from shared.errors import InvalidRequest
from shared.specs import ChatMessage

_WINDOW_MARGIN_TOKENS = 4
_INCOMPLETE = "\ufffd"
MOST_RENDERED_CHARACTERS = 2**24
"""Of a conversation; what is tokenised takes many times its length."""
MOST_QUOTED_CHARACTERS = 500
"""Of what a template says of itself."""


class Vocabulary:
    """A tokenizer with the ids that end a generation."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, end_ids: Iterable[int]) -> None:
        self._tokenizer = tokenizer
        self.end_ids = frozenset(end_ids)
        self._special_ids = frozenset(tokenizer.all_special_ids) | self.end_ids

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        return self._tokenizer

    @property
    def special_ids(self) -> frozenset[int]:
        """Tokens that add nothing to a text."""
        return self._special_ids

    def encode(self, text: str) -> list[int]:
        """A plain prompt; an empty one becomes the token that begins a text."""
        tokens: list[int] = self._tokenizer(text)["input_ids"]
        return tokens or [self._first_id()]

    def encode_chat(self, messages: Sequence[ChatMessage]) -> list[int]:
        """A conversation, opened for the assistant's turn. Raises InvalidRequest."""
        if not self._tokenizer.chat_template:
            raise InvalidRequest("this model has no chat template: use /v1/completions")
        turns = [_turn(message) for message in messages]
        try:
            rendered: Any = self._tokenizer.apply_chat_template(
                turns, add_generation_prompt=True, tokenize=False
            )
        except TemplateError as error:
            why = f"refuses these messages: {error}"[:MOST_QUOTED_CHARACTERS]
            raise InvalidRequest(f"the model's chat template {why}", param="messages") from error
        except Exception as error:  # a tenant's own template may divide by zero, or worse
            why = f"fails on these messages ({type(error).__name__})"
            raise InvalidRequest(f"the model's chat template {why}", param="messages") from error
        if len(rendered) > MOST_RENDERED_CHARACTERS:
            why = "makes too much of these messages"
            raise InvalidRequest(f"the model's chat template {why}", param="messages")
        tokens: list[int] = self._tokenizer(rendered, add_special_tokens=False)["input_ids"]
        return tokens or [self._first_id()]

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of generated tokens, without special ones."""
        text: str | list[str] = self._tokenizer.decode(
            list(tokens), skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return text if isinstance(text, str) else "".join(text)

    def decode_cut(self, tokens: Sequence[int]) -> str:
        """Like ``decode`` for a text cut at a limit: half a character at the end is left out."""
        text = self.decode(tokens)
        return text[:-1] if text.endswith(_INCOMPLETE) else text

    def find_stop(self, tokens: Sequence[int], stops: Sequence[str]) -> str | None:
        """The text before the first stop sequence, or None when there is none.

        Each token with text has at least one byte of it, so looking at as many last tokens as
        the longest stop has bytes is enough to notice; the whole text then decides.
        """
        window = max(len(stop.encode()) for stop in stops) + _WINDOW_MARGIN_TOKENS
        spoken = [token for token in tokens[-4 * window :] if token not in self._special_ids]
        tail = self.decode(spoken[-window:])
        if not any(stop in tail for stop in stops):
            return None
        text = self.decode(tokens)
        places = [place for place in map(text.find, stops) if place >= 0]
        return text[: min(places)] if places else None

    def _first_id(self) -> int:
        for token in (self._tokenizer.bos_token_id, self._tokenizer.eos_token_id):
            if isinstance(token, int):
                return token
        return 0


def _turn(message: ChatMessage) -> dict[str, str]:
    role = "system" if message.role == "developer" else message.role
    return {"role": role, "content": message.text}
