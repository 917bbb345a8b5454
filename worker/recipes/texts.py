"""From rows of text to tokens, with a mark on each token that the model is to learn.

Prompts are tokenised apart from answers, just as they are when the model is asked, and an answer
ends with the token at which an engine stops.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedTokenizerBase

from worker.recipes.shape import RecipeError

Messages = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Encoded:
    """One example. ``trained[i]`` says whether the model is to predict token i."""

    ids: list[int]
    trained: list[bool]

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def trained_count(self) -> int:
        """Tokens that are predicted; the first of all never is."""
        return sum(self.trained[1:])


@dataclass(frozen=True, slots=True)
class Question:
    """A validation example as it is asked: what the model sees, and what it ought to say."""

    ids: list[int]
    prompt: str
    answer: str


class Encoder:
    """Rows of the canonical forms with one tokenizer. Raises RecipeError when its chat template
    does not take the messages."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer
        end = tokenizer.eos_token_id
        if end is None:
            raise RecipeError("bad_base_model", "the base model's tokenizer has no end token")
        self.end_id = int(end)

    def encode(self, row: Mapping[str, Any]) -> Encoded:
        """A supervised row: the loss is on assistants' turns, on the completion, or on all."""
        if "messages" in row:
            return self.conversation(row["messages"])
        if "prompt" in row:
            prompt = self.plain(row["prompt"])
            completion = [*self._tokens(row["completion"]), self.end_id]
            return _joined([(prompt, False), (completion, True)])
        return _joined([([*self.plain(row["text"]), self.end_id], True)])

    def conversation(self, messages: Messages) -> Encoded:
        """Every assistant's turn is learnt, unless its ``weight`` is 0."""
        text = self.render(messages)
        pieces: list[tuple[list[int], bool]] = []
        at = 0
        for turn, message in enumerate(messages):
            if not _is_learnt(message):
                continue
            span = self._span(messages, turn, text)
            if span is None or span[0] < at:
                continue
            pieces.append((self._tokens(text[at : span[0]]), False))
            pieces += self._answer(text[span[0] : span[1]], last=turn == len(messages) - 1)
            at = span[1]
        if not pieces and any(_is_learnt(message) for message in messages):
            raise _refused("it does not show where an assistant's turn begins")
        pieces.append((self._tokens(text[at:]), False))
        return _joined(pieces)

    def answered(self, prompt: Messages, answer: Messages) -> Encoded:
        """A conversation of which only what follows the prompt is learnt."""
        seen = [{**message, "weight": 0} for message in prompt]
        if not any(_is_learnt(message) for message in answer):
            message = "an answer has no message of a weight other than 0"
            raise RecipeError("nothing_to_learn", message, "data", "training_file")
        return self.conversation([*seen, *answer])

    def question(self, row: Mapping[str, Any]) -> Question | None:
        """What to ask for the row's last answer; None for plain texts."""
        if "messages" in row:
            messages = row["messages"]
            asked = self.render(messages[:-1], opened=True)
            prompt = str(messages[-2]["content"]) if len(messages) > 1 else ""
            return Question(self._tokens(asked), prompt, str(messages[-1]["content"]))
        if "prompt" in row:
            return Question(self.plain(row["prompt"]), row["prompt"], row["completion"])
        return None

    def render(self, messages: Messages, *, opened: bool = False) -> str:
        """By the chat template; ``opened`` for an assistant's turn."""
        if not self.tokenizer.chat_template:
            raise RecipeError(
                "no_chat_template",
                "the base model has no chat template: train it on prompts with completions, or on "
                "texts",
                "data",
                "training_file",
            )
        bare = [{name: m[name] for name in m if name != "weight"} for m in messages]
        try:
            text = self.tokenizer.apply_chat_template(
                bare, add_generation_prompt=opened, tokenize=False
            )
        except Exception as error:  # a tenant's own template may divide by zero, or worse
            raise _refused(type(error).__name__) from error
        return str(text)

    def plain(self, text: str) -> list[int]:
        """A prompt, with what the tokenizer puts before one."""
        ids = list(self.tokenizer(text)["input_ids"])
        if ids and ids[-1] == self.end_id and not text.endswith(str(self.tokenizer.eos_token)):
            ids.pop()  # a tokenizer that ends every text
        return ids

    def _span(self, messages: Messages, turn: int, text: str) -> tuple[int, int] | None:
        """Where the turn's words are in ``text``; None when the template shows earlier turns in
        another way than the last one."""
        last = turn == len(messages) - 1
        end = text if last else self.render(messages[: turn + 1])
        if not text.startswith(end):
            return None
        try:
            before = self.render(messages[:turn], opened=True)
        except RecipeError:
            if turn > 0:
                raise
            return None  # there is nothing before the first turn, which some templates refuse
        begin = _shared(before, text)
        header = _shared(self.render(messages[:turn]), text) if turn else 0
        # An opening may hold more than a closed turn shows, such as the start of a thought.
        return (begin, len(end)) if begin == len(before) or begin > header else None

    def _answer(self, text: str, *, last: bool) -> list[tuple[list[int], bool]]:
        """An answer up to its end token is learnt, what the template puts behind is not."""
        ids = self._tokens(text)
        if self.end_id in ids:
            end = len(ids) - ids[::-1].index(self.end_id)
            return [(ids[:end], True), (ids[end:], False)]
        return [([*ids, self.end_id], True)] if last else [(ids, True)]

    def _tokens(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"]) if text else []


def cut(encoded: Encoded, length: int) -> Encoded:
    """At most ``length`` tokens: the beginning, unless all that is to be learnt lies behind it."""
    if len(encoded) <= length:
        return encoded
    if any(encoded.trained[1:length]):
        return Encoded(encoded.ids[:length], encoded.trained[:length])
    return Encoded(encoded.ids[-length:], encoded.trained[-length:])


def _joined(pieces: Sequence[tuple[list[int], bool]]) -> Encoded:
    ids = [token for tokens, _ in pieces for token in tokens]
    trained = [learnt for tokens, learnt in pieces for _ in tokens]
    return Encoded(ids, trained)


def _shared(one: str, other: str) -> int:
    """How many characters both begin with."""
    low, high = 0, min(len(one), len(other))
    while low < high:  # halving: one by one would take minutes of a long conversation
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def _is_learnt(message: Mapping[str, Any]) -> bool:
    return bool(message["role"] == "assistant" and message.get("weight") != 0)


def _refused(reason: str) -> RecipeError:
    message = f"the base model's chat template does not take these conversations: {reason}"
    return RecipeError("bad_chat_template", message, "data", "training_file")
