"""What a text must be to train with, beyond what the template's gates say."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from shared.productions.augmenting_preset import CHAT
from shared.productions.gates import Gates, Refusal
from shared.productions.specs import Task
from shared.productions.template import Template
from shared.productions.words import shingles, words_of
from worker.upkeep.productions.augmenting import problem_of, training_line
from worker.upkeep.productions.duplicates import SHINGLE_WORDS

COPIED = 0.7
"""The share of an example's runs of words that a text may not have."""
TIMES_AS_LONG, WORDS_MORE = 3, 10
"""How far a text may be over the wished length."""


class AugmentingGates(Gates):
    """Judges texts that become lines of a training file."""

    def __init__(self, template: Template, language_of: Callable[[str], str], task: Task) -> None:
        super().__init__(template, language_of)
        self._task = task

    def judge(
        self,
        text: str,
        columns: Mapping[str, Any],
        *,
        audience: Mapping[str, Any] | None = None,
        sources: Sequence[str] = (),
    ) -> Refusal | None:
        refusal = super().judge(text, columns, audience=audience, sources=sources)
        if refusal is not None:
            return refusal
        line = training_line(self._task, text, columns)
        problem = problem_of(self._task, line)
        if problem is not None:
            return Refusal("training_format", problem.message)
        return self._shape(text, columns) or self._copies(self.said(text), columns)

    def _shape(self, text: str, columns: Mapping[str, Any]) -> Refusal | None:
        """One text of about the wished length, and not several."""
        if self._task.form == CHAT:
            return None
        one_line = all("\n" not in shot for shot in columns["shots"])
        if one_line and "\n" in text.strip():
            return Refusal("one_line", "it has several lines, and no example has")
        most = TIMES_AS_LONG * columns["words"] + WORDS_MORE
        found = len(words_of(text))
        if found > most:
            return Refusal("too_long", f"{found} words where about {columns['words']} were asked")
        return None

    def _copies(self, said: str, columns: Mapping[str, Any]) -> Refusal | None:
        there = shingles(said, SHINGLE_WORDS)
        for shot, line in zip(columns["shots"], columns["seeds"], strict=True):
            shown = shot["user"] if isinstance(shot, dict) else shot
            own = shingles(shown, SHINGLE_WORDS)
            if len(own & there) >= COPIED * len(own):
                return Refusal("copies_example", f"most of the example of line {line} is in it")
        return None
