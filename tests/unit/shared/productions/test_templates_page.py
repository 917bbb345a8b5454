"""The page about templates is about the templates that there are."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydantic import BaseModel

from shared.productions import specs
from shared.productions.filters import FILTERS, TESTS
from shared.productions.outcomes import Status
from shared.productions.presets import PRESETS
from shared.productions.rendering import Renderer, Source
from shared.productions.tables import SUFFIXES
from shared.productions.template import BODY, Template, parse_template

PAGE = (Path(__file__).parents[4] / "docs" / "templates.md").read_text()
EXAMPLES = re.findall(r"^```template\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
KINDS = [
    each
    for each in vars(specs).values()
    if isinstance(each, type) and issubclass(each, BaseModel) and each.__module__ == specs.__name__
]
ROW = {
    "name": "Mug", "brand": "Ess", "features": ["blue", "small"], "text": "A mug.", "price": 3,
    "mood": "calm", "question": "Why?", "material": "steel", "description": "Round.",
    "Product name": "Mug", "maker": {"city": "Rom"}, "tags": ["a"], "code": "abcd", "stock": 3,
    "history": [{"role": "Customer", "content": "Hello!"}],
    "label": "refund", "shots": ["Where is my money?"], "topic": "a lamp", "writer": "a student",
    "system": None, "seeds": [1], "words": 12,
}  # fmt: skip


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_every_example_is_a_template(number: int) -> None:
    template = parse_template(EXAMPLES[number])
    template.check_table(ROW)
    rendered = Renderer(template).messages(
        ROW,
        audience={"name": "parents", "tone": "calm"},
        sources=[Source(1, "It says so.")],
        texts={step.name: "so far" for step in template.head.steps},
    )
    assert rendered[-1]["role"] == "user"


def test_there_is_an_example_of_every_key() -> None:
    templates = [parse_template(example) for example in EXAMPLES]
    used = {key for template in templates for key in keys_of(template)}
    known = {(kind.__name__, key) for kind in KINDS for key in kind.model_fields}
    assert known - used <= {("Task", "turns"), ("Step", "json_schema")}  # tables name them


def keys_of(template: Template) -> set[tuple[str, str]]:
    found: set[tuple[str, str]] = set()
    todo: list[object] = [template.head]
    while todo:
        part = todo.pop()
        if isinstance(part, list):
            todo += part
        elif isinstance(part, BaseModel):
            found |= {(type(part).__name__, key) for key in part.model_fields_set}
            todo += [getattr(part, key) for key in part.model_fields_set]
    return found


@pytest.mark.parametrize(
    "word",
    [
        *(field.alias or key for kind in KINDS for key, field in kind.model_fields.items()),
        *FILTERS, *TESTS, *PRESETS, *SUFFIXES, *Status,
    ],
)  # fmt: skip
def test_every_word_is_on_the_page(word: str) -> None:
    assert re.search(rf"(?<![\w.]){re.escape(word)}(?!\w)", PAGE)


def test_the_bodys_example() -> None:
    [example] = [each for each in EXAMPLES if "loop.index" in each]
    text = parse_template(example).texts[BODY].render(ROW)
    assert text == (
        "Mug costs 3.0 euros and is made by Ess.\nMug, Rom, a, abc\n1. Blue,\n2. Small\n"
        "On sale\n{{ these braces are written }}"
    )
