"""Matchers of JSON schemas: what llguidance is asked for, and how much it may take. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from llguidance import LLMatcher, LLParserLimits, LLTokenizer

if TYPE_CHECKING:
    from llguidance._lib import JsonCompileOptions

_MOST_MESSAGE = 300
LIMITS = LLParserLimits(
    initial_lexer_fuel=1_000_000,
    step_lexer_fuel=200_000,
    step_max_items=50_000,
    max_items_in_row=2_000,
    max_lexer_states=50_000,
    max_grammar_size=200_000,
    verbose_errors=False,
)
"""20 ms a token at the worst, and ten megabytes a choice. What compiling takes they do not bound:
``schema_trials`` does."""
WRITING: JsonCompileOptions = {
    "whitespace_flexible": False,
    "item_separator": ", ?",
    "key_separator": ": ?",
    "coerce_one_of": True,
}
"""On one line, as most JSON that models have read: space elsewhere is where small models get lost.
``oneOf`` is generated as ``anyOf``; the check of the finished answer tells them apart."""


class UnusableSchema(Exception):
    """No grammar could be made of a schema; ``why`` says the reason."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


def tokenizer_of(written: str, ends: Sequence[int]) -> LLTokenizer:
    """Of a fast tokenizer's JSON; ``ends`` are the tokens that end a text."""
    return LLTokenizer(written, eos_token=list(ends), slices=LLTokenizer.json_slices())


def matcher_of(tokenizer: LLTokenizer, schema: str) -> LLMatcher:
    """A matcher of ``schema``, JSON of one that was checked (``shared.specs.schemas``). Raises
    UnusableSchema."""
    try:
        source = LLMatcher.grammar_from_json_schema(schema, overrides=WRITING)
    except ValueError as error:
        raise UnusableSchema(str(error)[:_MOST_MESSAGE]) from None
    matcher = LLMatcher(tokenizer, source, log_level=0, limits=LIMITS)
    why = error_of(matcher)
    if why is not None:
        raise UnusableSchema(why)
    return matcher


def error_of(matcher: LLMatcher) -> str | None:
    """What went wrong with a matcher, in one line; None when nothing did."""
    if not matcher.is_error():
        return None
    lines = (line for line in matcher.get_error().splitlines() if line and line[0] != "<")
    return " ".join(" ".join(lines).split())[:_MOST_MESSAGE] or "no reason is given"
