"""Gates: what a text must be to be kept. The first that refuses is named."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from shared.productions.filters import text_of
from shared.productions.languages import LANGUAGES
from shared.productions.rendering import Renderer
from shared.productions.schemas import Schema
from shared.productions.template import Template
from shared.productions.words import holds, plain, words_of

NEAR_DUPLICATES = "near_duplicates"
"""This gate looks at all texts of a production: see ``worker.upkeep.productions.duplicates``."""
UNFINISHED = "unfinished"
"""The gate of answers that were cut by ``max_tokens``; whoever reads the answer knows."""
LEAST_LETTERS = 12
"""A language is not guessed of less."""
_CITED = re.compile(r"\[([0-9]{1,4})\]")
_NUMBER = re.compile(r"[0-9]+(?:[.,][0-9]+)*")
_GROUPING = re.compile(r"[.,](?=[0-9]{3}(?![0-9]))")


@dataclass(frozen=True, slots=True)
class Refusal:
    """``gate`` is its key in the template (or ``schema``), ``message`` a sentence."""

    gate: str
    message: str

    @property
    def reason(self) -> str:
        """For the output's column."""
        return f"{self.gate}: {self.message}"


class Gates:
    """Judges texts of one production. ``language_of`` tells a text's language by its code."""

    def __init__(self, template: Template, language_of: Callable[[str], str]) -> None:
        self._language_of = language_of
        self._rules = template.head.gates
        self._renderer = Renderer(template)
        self._cites = template.head.documents is not None
        schema = template.head.json_schema
        self._schema = None if schema is None else Schema(schema)

    @property
    def near_duplicates(self) -> float | None:
        """The similarity from which on a text is a near-duplicate, when that is asked about."""
        return self._rules.near_duplicates

    @property
    def wants_an_end(self) -> bool:
        """Whether an answer that was cut is refused, also where no schema asks for all of it."""
        return self._rules.finished

    def judge(
        self,
        text: str,
        columns: Mapping[str, Any],
        *,
        audience: Mapping[str, Any] | None = None,
        sources: Sequence[str] = (),
    ) -> Refusal | None:
        """None for a text that is kept. ``columns`` is the row; ``sources`` are the passages that
        the item was given. With a schema, the other gates look at the words in the answer's
        values. Raises RowRefused when a phrase can't be rendered for this row."""
        if not text.strip():
            return Refusal("empty", "the text is empty")
        if self._schema is not None:
            problem = self._schema.problem(text)
            if problem is not None:
                return Refusal("schema", problem)
        said = self.said(text)
        return (
            self._lengths(said)
            or self._phrases(said, columns, audience)
            or self._citations(said, len(sources))
            or self._numbers(said, [columns, audience, *sources])
            or self._language(said)
        )

    def said(self, text: str) -> str:
        """What a text says: itself, or with a schema all texts in it, line by line."""
        if self._schema is None:
            return text
        return "\n".join(_strings(json.loads(text)))

    def _lengths(self, said: str) -> Refusal | None:
        rules = self._rules
        counted = (
            ("words", len(words_of(said)), rules.min_words, rules.max_words),
            ("chars", len(said.strip()), rules.min_chars, rules.max_chars),
        )
        for what, found, least, most in counted:
            if least is not None and found < least:
                return Refusal(f"min_{what}", f"{found} {what}, at least {least} are wanted")
            if most is not None and found > most:
                return Refusal(f"max_{what}", f"{found} {what}, at most {most} are wanted")
        return None

    def _phrases(
        self, said: str, columns: Mapping[str, Any], audience: Mapping[str, Any] | None
    ) -> Refusal | None:
        if not self._rules.required and not self._rules.forbidden:
            return None
        words = plain(said)
        for phrase in self._renderer.phrases("required", columns, audience):
            if phrase and not holds(words, plain(phrase)):
                return Refusal("required", f"'{phrase[:100]}' is missing")
        for phrase in self._renderer.phrases("forbidden", columns, audience):
            if phrase and holds(words, plain(phrase)):
                return Refusal("forbidden", f"'{phrase[:100]}' is in it")
        return None

    def _citations(self, said: str, sources: int) -> Refusal | None:
        if not self._rules.cites_sources:
            return None
        cited = cited_sources(said)
        if not cited:
            return Refusal("cites_sources", "no source is cited, such as [1]")
        if cited[-1] > sources or cited[0] < 1:
            wrong = cited[-1] if cited[-1] > sources else cited[0]
            return Refusal("cites_sources", f"there is no source [{wrong}]")
        return None

    def _numbers(self, said: str, given: Sequence[Any]) -> Refusal | None:
        if not self._rules.known_numbers:
            return None
        known = set(_numbers_of(text_of(given)))
        own = _CITED.sub(" ", said) if self._cites else said
        for number in _NUMBER.findall(own):
            if not known.issuperset(_numbers_of(number)):
                return Refusal("known_numbers", f"{number} is not in what was given")
        return None

    def _language(self, said: str) -> Refusal | None:
        wanted = self._rules.language
        if wanted is None or sum(map(str.isalpha, said)) < LEAST_LETTERS:
            return None
        found = self._language_of(said)
        if _same(found, wanted):
            return None
        name = LANGUAGES.get(found, found)
        return Refusal("language", f"it looks like {name}, {LANGUAGES[wanted]} is wanted")


def cited_sources(text: str) -> list[int]:
    """The numbers that a text cites as ``[1]``, each once, in order."""
    return sorted({int(number) for number in _CITED.findall(text)})


def _numbers_of(text: str) -> list[str]:
    """Each as it is compared: ``80,000`` and ``80.000`` are ``80000``, ``563.00`` is ``563``."""
    found = (_GROUPING.sub("", each).replace(",", ".") for each in _NUMBER.findall(text))
    return [each.rstrip("0").rstrip(".") if "." in each else each for each in found]


_NORWEGIAN = frozenset({"no", "nb", "nn"})


def _same(found: str, wanted: str) -> bool:
    return found == wanted or (found in _NORWEGIAN and wanted in _NORWEGIAN)


def _strings(value: Any) -> list[str]:
    """All texts in a value, in order."""
    found: list[str] = []
    todo = [value]
    while todo:
        each = todo.pop()
        if isinstance(each, str):
            found.append(each)
        elif isinstance(each, dict):
            todo += reversed(each.values())
        elif isinstance(each, list):
            todo += reversed(each)
    return found
