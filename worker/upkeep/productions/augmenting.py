"""Productions whose data are examples and whose output is a training file.

Examples are read, and what was written is looked at, by the code that judges the uploads of
fine-tunings.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from shared.errors import InvalidRequest
from shared.lifecycle import BadLine
from shared.productions.augmenting import (
    COLUMNS,
    MOST_SEED_CHARACTERS,
    MOST_SEEDS,
    Augmenter,
    Seed,
    seed_of_row,
)
from shared.productions.augmenting_preset import CHAT, CLASSIFICATION
from shared.productions.specs import Task
from shared.productions.tables import Table, TableRefused, TableRow
from shared.specs.fine_tuning import RecipeName
from worker.tuning.data.formats import read_items
from worker.tuning.data.limits import DataLimits
from worker.tuning.data.source import Source

_QUOTES = (('"', '"'), ("\N{LEFT DOUBLE QUOTATION MARK}", "\N{RIGHT DOUBLE QUOTATION MARK}"))


def recipe_of(task: Task) -> RecipeName:
    """Whose training files the task writes."""
    return "text_classification" if task.form == CLASSIFICATION else "supervised"


def read_seeds(source: Source, task: Task) -> Iterator[Seed | BadLine]:
    """Every example of the file, and every line that is none. Raises TableRefused for a file with
    too much of them, and what reading the source raises."""
    if source.suffix not in (".csv", ".jsonl"):
        raise TableRefused(BadLine("invalid_table", "examples are CSV or JSONL"))
    if source.suffix == ".csv" and task.form != CLASSIFICATION:
        message = "examples in CSV have a text and a label; these are JSONL"
        raise TableRefused(BadLine("invalid_table", message))
    read = characters = 0
    for item in read_items(recipe_of(task), source, DataLimits()):
        if isinstance(item, BadLine):
            yield item
            continue
        line = item.line or read + 1
        try:
            seed = seed_of_row(item.row, task.form, line)
        except InvalidRequest as wrong:
            yield BadLine(wrong.code, wrong.message, line, wrong.param)
            continue
        read, characters = read + 1, characters + len(seed.said)
        if read > MOST_SEEDS or characters > MOST_SEED_CHARACTERS:
            message = f"over {MOST_SEEDS} examples, or {MOST_SEED_CHARACTERS} characters of them"
            raise TableRefused(BadLine("too_many_examples", message))
        yield seed


def good_seeds(source: Source, task: Task) -> list[Seed]:
    """Those of a file that was found good. Raises TableRefused."""
    seeds: list[Seed] = []
    for each in read_seeds(source, task):
        if isinstance(each, BadLine):
            raise TableRefused(each)
        seeds.append(each)
    return seeds


def augmented_table(source: Source, task: Task, seed: int) -> Table:
    """What is to be written, as a table. Its rows are bad lines alone where the file has one;
    reading them raises InvalidRequest for examples that the task can't be done with, and what
    ``read_seeds`` raises."""
    return Table(list(COLUMNS), _rows(source, task, seed))


def _rows(source: Source, task: Task, seed: int) -> Iterator[TableRow | BadLine]:
    seeds: list[Seed] = []
    are_good = True
    for each in read_seeds(source, task):
        if isinstance(each, BadLine):
            are_good = False
            yield each
        elif are_good:
            seeds.append(each)
    if are_good:
        yield from Augmenter(task, seeds, seed).rows()


def training_line(task: Task, text: str, columns: Mapping[str, Any]) -> dict[str, Any]:
    """The line of a training file that a row and its text make. ``text`` has passed the gates that
    every text has to pass."""
    if task.form == CHAT:
        pair = json.loads(text)
        messages = [
            {"role": "user", "content": pair["user"].strip()},
            {"role": "assistant", "content": pair["assistant"].strip()},
        ]
        if columns["system"]:
            messages.insert(0, {"role": "system", "content": columns["system"]})
        return {"messages": messages}
    said = without_quotes(text)
    return {"text": said, "label": columns["label"]} if task.form == CLASSIFICATION else {
        "text": said
    }  # fmt: skip


def without_quotes(text: str) -> str:
    """The text without space around it, and without quotation marks around all of it."""
    said = text.strip()
    for left, right in _QUOTES:
        inner = said[1:-1]
        if len(said) > 2 and said.startswith(left) and said.endswith(right):  # noqa: PLR2004
            return said if left in inner or right in inner else inner.strip()
    return said


def problem_of(task: Task, line: Mapping[str, Any]) -> BadLine | None:
    """What the judge of training files says against a line of one."""
    data = json.dumps(line, ensure_ascii=False).encode("utf-8", "replace") + b"\n"
    source = Source("line.jsonl", len(data), lambda: [data])
    found = list(read_items(recipe_of(task), source, DataLimits()))
    bad = next((each for each in found if isinstance(each, BadLine)), None)
    if bad is None and len(found) != 1:
        return BadLine("empty_content", "the line has no example")
    return bad
