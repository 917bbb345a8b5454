"""Training data from a few examples: the rows of a production that writes more of the same.

The data of such a production are the examples. Its rows are what is to be written: of each label as
many as were asked for, each with some examples that change from row to row, and with hints that
make the texts differ. Rows are made of the examples, the task and a seed alone, so that every
reading of the data has the same ones.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from shared.errors import InvalidRequest
from shared.productions.augmenting_hints import LENGTHS, TOPICS, WRITERS
from shared.productions.specs import AUGMENT, Example, Task, TemplateHead
from shared.productions.tables import TableRow
from shared.productions.words import words_of

SHOTS = "shots"
COLUMNS = ("label", SHOTS, "topic", "writer", "words", "seeds", "system")
"""Of the rows: the label (null without labels), the examples that are shown, a hint each on what
about, as whom and how long, the lines of the examples, and their system message."""
SHOWN = 4
"""Examples a prompt, unless the task says otherwise."""
MOST_SEEDS = 10_000
MOST_SEED_CHARACTERS = 8_000_000
FEWEST_WORDS = 3


@dataclass(frozen=True, slots=True)
class Seed:
    """An example. ``line`` is where it begins in its file; ``asked`` and ``system`` are those of a
    chat, of which ``text`` is the answer."""

    line: int
    text: str
    label: str | None = None
    asked: str | None = None
    system: str | None = None

    @property
    def shown(self) -> Any:
        """As it stands in a row's ``shots``."""
        return self.text if self.asked is None else {"user": self.asked, "assistant": self.text}

    @property
    def said(self) -> str:
        """All that near-duplicates are compared by."""
        return self.text if self.asked is None else f"{self.asked}\n{self.text}"


def augmenting(head: TemplateHead) -> Task | None:
    """The task of a template that makes training data, whole; None for any other."""
    return head.task if head.task is not None and head.task.name == AUGMENT else None


def turns_of(row: Mapping[str, Any]) -> list[Example]:
    """A row's examples, each asked for as the row is, but for hints."""
    found = []
    for shot in row[SHOTS]:
        text = shot["assistant"] if isinstance(shot, dict) else shot
        output = json.dumps(shot, ensure_ascii=False) if isinstance(shot, dict) else shot
        own = {"topic": None, "writer": None, "words": len(words_of(text)), "system": None}
        found.append(Example.model_construct(input={**row, **own}, output=output))
    return found


def seed_of_row(row: Mapping[str, Any], form: str | None, line: int) -> Seed:
    """The example that a row of a training file is: what its reader yields, or as good as that.
    Raises InvalidRequest for a form of example that the task does not write."""
    match form:
        case "classification" if _texts(row, "text", "label"):
            return Seed(line, str(row["text"]).strip(), str(row["label"]).strip())
        case "text" if _texts(row, "text"):
            return Seed(line, row["text"].strip())
        case "chat" if _texts(row, "prompt", "completion"):
            return Seed(line, row["completion"].strip(), asked=row["prompt"].strip())
        case "chat" if isinstance(row.get("messages"), list):
            return _of_messages(row["messages"], line)
    wanted = {
        "classification": "'text' and 'label'",
        "text": "'text'",
        "chat": "'messages', or 'prompt' and 'completion'",
    }
    message = f"line {line}: an example of the form '{form}' has {wanted[form or 'text']}"
    raise InvalidRequest(message, param="template.task.form")


def _texts(row: Mapping[str, Any], *names: str) -> bool:
    return all(str(row.get(name) or "").strip() for name in names)


def _of_messages(messages: Sequence[Any], line: int) -> Seed:
    """Raises InvalidRequest for anything but a question and its answer."""
    found = [each if isinstance(each, dict) else {} for each in messages]
    turns = [(each.get("role"), _plain(each.get("content"))) for each in found]
    systems = [text for role, text in turns if role in ("system", "developer")]
    rest = [turn for turn in turns if turn[0] not in ("system", "developer")]
    if [role for role, _ in rest] != ["user", "assistant"] or len(systems) > 1:
        message = f"line {line}: only chats of one question and its answer are written more of"
        raise InvalidRequest(message, param="data_file_id")
    asked, answered = (text.strip() for _, text in rest)
    return Seed(line, answered, asked=asked, system=systems[0] if systems else None)


def _plain(content: Any) -> str:
    if isinstance(content, list):
        parts = [each.get("text") for each in content if isinstance(each, dict)]
        return "".join(part for part in parts if isinstance(part, str))
    return content if isinstance(content, str) else ""


class Augmenter:
    """``rows`` of one production. Raises InvalidRequest for examples that won't do."""

    def __init__(self, task: Task, seeds: Sequence[Seed], seed: int) -> None:
        if not seeds:
            raise InvalidRequest("the file has no examples", param="data_file_id")
        self._seed = seed
        self._shown = task.examples or SHOWN
        self._hints = task.hints is not False
        self._pools: dict[str | None, list[Seed]] = {}
        for each in seeds:
            self._pools.setdefault(each.label, []).append(each)
        self.asked = _asked(task, list(self._pools))
        """How many rows of each label, in the order of the task or of the examples."""

    def rows(self) -> Iterator[TableRow]:
        """All of them, the labels by turns; numbers and lines count from 1."""
        number = 0
        turns = {label: self._turns(label) for label in self.asked}
        for turn in range(max(self.asked.values())):
            for label, count in self.asked.items():
                if turn < count:
                    number += 1
                    yield TableRow(number, number, turns[label].row(turn))

    def _turns(self, label: str | None) -> _Turns:
        return _Turns(self._pools[label], self._seed, self._shown, hints=self._hints)


class _Turns:
    """What is shown for the rows of one label. Every example is shown as often as the others."""

    def __init__(self, pool: Sequence[Seed], seed: int, shown: int, *, hints: bool) -> None:
        self._pool = pool
        self._shown = min(shown, len(pool))
        self._hints = hints
        self._key = f"{seed}:{pool[0].label}"
        self._round = -1
        self._order: list[Seed] = []
        chance = random.Random(self._key)  # noqa: S311 - nothing is kept secret by it
        self._topics = chance.sample(TOPICS, len(TOPICS))
        self._writers = chance.sample(WRITERS, len(WRITERS))

    def row(self, turn: int) -> dict[str, Any]:
        turn_round, at = divmod(turn, len(self._pool))
        if turn_round != self._round:
            chance = random.Random(f"{self._key}:{turn_round}")  # noqa: S311
            self._order, self._round = chance.sample(self._pool, len(self._pool)), turn_round
        twice = self._order + self._order
        shots = twice[at : at + self._shown]
        length = len(words_of(shots[0].text)) * LENGTHS[turn % len(LENGTHS)]
        return {
            "label": shots[0].label,
            SHOTS: [each.shown for each in shots],
            "topic": self._topics[turn % len(TOPICS)] if self._hints else None,
            "writer": self._writers[turn % len(WRITERS)] if self._hints else None,
            "words": max(FEWEST_WORDS, round(length)),
            "seeds": [each.line for each in shots],
            "system": shots[0].system,
        }


def _asked(task: Task, there: list[str | None]) -> dict[str | None, int]:
    """Raises InvalidRequest for a label of which there is no example."""
    if isinstance(task.labels, dict):
        counts: dict[str | None, int] = dict(task.labels.items())
    else:
        labels = there if task.labels is None else list(task.labels)
        each, left = divmod(task.rows or 0, len(labels))
        counts = {label: each + (at < left) for at, label in enumerate(labels)}
    unknown = next((label for label in counts if label not in there), None)
    if unknown is not None:
        message = f"there is no example with the label '{unknown}'"
        raise InvalidRequest(message, param="template.task.labels")
    return {label: count for label, count in counts.items() if count}
