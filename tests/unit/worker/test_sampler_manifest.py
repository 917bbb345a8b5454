"""Which class a prompt names."""

from __future__ import annotations

import re
from typing import Any

import pytest

from shared.errors import InvalidRequest
from worker.engines.samplers.manifest import Manifest

NAMES = ["red", "dark red", "a.b", *(f"class {number}" for number in range(2_000))]


def of(names: list[str]) -> Manifest:
    return Manifest(kind="gan", classes=names, image_size=8, channels=3)


@pytest.mark.parametrize(
    ("prompt", "number"),
    [
        ("red", 0),
        ("A Dark Red, please", 1),
        ("one a.b", 2),
        ("class 7!", 10),
        ("CLASS 1999", 2_002),
    ],
)
def test_a_prompt_names_one_class(prompt: str, number: int) -> None:
    assert of(NAMES).class_of(prompt) == number


@pytest.mark.parametrize("prompt", ["reddish", "axb", "red and class 7", "(?:", ""])
def test_other_prompts_are_refused(prompt: str) -> None:
    with pytest.raises(InvalidRequest):
        of(NAMES).class_of(prompt)


def test_only_names_that_occur_are_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Making an expression for each name takes seconds, and the rows of others would wait."""
    made: list[str] = []
    compile = re.compile

    def counted(pattern: Any, *rest: Any) -> Any:
        made.append(pattern)
        return compile(pattern, *rest)

    monkeypatch.setattr(re, "compile", counted)
    assert of(NAMES).class_of("class 1234 of many") == 1_237
    assert made == [r"(?<!\w)class\ 1234(?!\w)"]
