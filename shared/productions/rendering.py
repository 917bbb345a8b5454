"""From a row to the messages of a chat."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from shared.productions.allowed import AUDIENCE, SOURCES
from shared.productions.augmenting import SHOTS, augmenting, turns_of
from shared.productions.filters import Passages, text_of
from shared.productions.sandbox import RowRefused, Text
from shared.productions.specs import Example
from shared.productions.template import BODY, Template

__all__ = ["Renderer", "RowRefused", "Source"]

MOST_MESSAGES_CHARACTERS = 1_900_000
"""Of all messages of one call; below what a call may have."""


@dataclass(frozen=True, slots=True)
class Source:
    """A passage that was found for an item; ``number`` is how it is cited: ``[1]``."""

    number: int
    text: str
    file: str = ""
    """Its id."""
    score: float = 0.0
    passage: int = 0
    """Which one of the file, from 1."""
    name: str = ""
    """The file's."""


class Renderer:
    """Renders one template. Holds nothing between calls; may be used by several threads."""

    def __init__(self, template: Template) -> None:
        """Raises RowRefused for an example that can't be rendered."""
        self._template = template
        self._columns = template.columns()
        body = template.texts[BODY]
        same = not (body.uses_audience or body.uses_sources)
        # Examples that look alike for every item are rendered once.
        self._examples = self._shown(template.head.examples, None, ()) if same else None
        self._turns = augmenting(template.head) is not None and SHOTS not in body.columns
        """Whether rows bring examples, which the body does not show itself."""

    def messages(
        self,
        row: Mapping[str, Any],
        *,
        step: str | None = None,
        audience: Mapping[str, Any] | None = None,
        examples: Sequence[Example] = (),
        sources: Sequence[Source] = (),
        texts: Mapping[str, str] | None = None,
    ) -> list[dict[str, str]]:
        """The chat for one item: ``step`` names one of the template's, None is the body.

        ``examples`` come behind those of the template; ``texts`` are what earlier steps made, by
        their names. Raises RowRefused.
        """
        values = self._values(row, audience, sources) | dict(texts or {})
        prompt, system = self._prompts(step)
        messages = [] if system is None else [_message("system", system.render(values))]
        if step is None:
            own = self._examples
            if own is None:
                own = self._shown(self._template.head.examples, audience, sources)
            if self._turns:
                examples = [*turns_of(row), *examples]
            messages += [*own, *self._shown(examples, audience, sources)]
        messages.append(_message("user", prompt.render(values)))
        if not messages[-1]["content"]:
            raise RowRefused("prompt_empty", "nothing is left of the prompt for this row")
        if sum(len(message["content"]) for message in messages) > MOST_MESSAGES_CHARACTERS:
            message = f"the prompt gets longer than {MOST_MESSAGES_CHARACTERS} characters"
            raise RowRefused("prompt_too_long", message)
        return messages

    def query(self, row: Mapping[str, Any], audience: Mapping[str, Any] | None = None) -> str:
        """What is looked up in the documents for one item. Raises RowRefused."""
        return self._template.texts["documents.query"].render(self._values(row, audience, ()))

    def not_found(self, row: Mapping[str, Any], audience: Mapping[str, Any] | None = None) -> str:
        """The text of an item that no document matches. Raises RowRefused."""
        return self._template.texts["documents.not_found"].render(self._values(row, audience, ()))

    def phrases(
        self, gate: str, row: Mapping[str, Any], audience: Mapping[str, Any] | None = None
    ) -> list[str]:
        """What ``gates.required`` or ``gates.forbidden`` say for one item. Raises RowRefused."""
        values = self._values(row, audience, ())
        rules = getattr(self._template.head.gates, gate)
        texts = self._template.texts
        return [texts[f"gates.{gate}[{at}]"].render(values) for at in range(len(rules))]

    def input_text(self, row: Mapping[str, Any]) -> str:
        """What of a row is compared with examples: the columns that the body uses, as text.
        Raises RowRefused."""
        body = self._template.texts[BODY]
        steps = {step.name for step in self._template.head.steps}
        return "\n".join(
            text_of(row.get(column)) for column in sorted(body.columns - steps)
        ).strip()

    def _shown(
        self,
        examples: Sequence[Example],
        audience: Mapping[str, Any] | None,
        sources: Sequence[Source],
    ) -> list[dict[str, str]]:
        """Questions and answers of few-shot examples."""
        body, messages = self._template.texts[BODY], list[dict[str, str]]()
        for example in examples:
            own = [Source(number, text) for number, text in enumerate(example.sources, 1)]
            values = self._values(example.input, example.audience or audience, own or sources)
            messages.append(_message("user", body.render(values)))
            messages.append(_message("assistant", example.output))
        return messages

    def _prompts(self, step: str | None) -> tuple[Text, Text | None]:
        texts = self._template.texts
        if step is None:
            return texts[BODY], texts.get("system")
        at = [each.name for each in self._template.head.steps].index(step)
        return texts[f"steps[{at}].prompt"], texts.get(f"steps[{at}].system")

    def _values(
        self,
        row: Mapping[str, Any],
        audience: Mapping[str, Any] | None,
        sources: Sequence[Source],
    ) -> dict[str, Any]:
        """A column that this row leaves out is empty: that the table has it was checked before."""
        values = dict.fromkeys(self._columns) | dict(row)
        if audience is not None:
            values[AUDIENCE] = dict(audience)
        if self._template.head.documents is not None:
            values[SOURCES] = Passages(
                {
                    "number": each.number,
                    "text": each.text,
                    "file": each.file,
                    "name": each.name,
                    "passage": each.passage,
                    "score": each.score,
                }
                for each in sources
            )
        return values


def _message(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}
