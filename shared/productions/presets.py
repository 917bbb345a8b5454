"""Prompts for common tasks: ``task: summary`` fills in what a template leaves out."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from shared.productions.augmenting_preset import with_augmenting
from shared.productions.grounding import REPLY_SYSTEM, grounds, reply
from shared.productions.head import refused
from shared.productions.languages import LANGUAGES
from shared.productions.specs import AUGMENT, GateRules, Task, TemplateHead

TEXT = "text"
"""The column that a task reads when it names none."""
OPTIONS = tuple(name for name in Task.model_fields if name != "name")
AUGMENTING = frozenset({"language", "tone", "form", "rows", "labels", "examples", "hints"})
"""The keys of ``task`` that it takes where it makes training data."""
_IDENTIFIER = re.compile(r"[A-Za-z][A-Za-z0-9_]*")


@dataclass(frozen=True, slots=True)
class Preset:
    """``options`` are the keys of ``task`` that it understands."""

    system: str
    ask: Callable[[Task], str]
    """What stands above the row's texts."""
    options: frozenset[str]
    words: int | None = None
    """What ``words`` is when it is left out."""


def with_preset(head: TemplateHead, body: str, line: int) -> tuple[TemplateHead, str]:
    """The head and the body with the task's parts where they have none. ``line`` is the task's in
    the file. Raises InvalidRequest."""
    task = head.task
    if task is None:
        return head, body
    if task.name == AUGMENT:
        _check_options(task, AUGMENTING, line)
        return with_augmenting(head, body, line, _language(task.language))
    preset = PRESETS[task.name]
    _check_options(task, preset.options | {"columns"}, line)
    if task.name == "translation" and task.language is None:
        message = "task.language: say what to translate into, such as 'language: de'"
        raise refused(line, message, "template.task.language")
    words = task.words or preset.words
    told = task.model_copy(update={"words": words, "language": _language(task.language)})
    update: dict[str, object] = {"gates": _gates(head.gates, task, words)}
    if head.system is None:
        update["system"] = preset.system if task.history is None else REPLY_SYSTEM
    if not body.strip():
        body = _body(head, told, preset, line)
    return head.model_copy(update=update), body


def _body(head: TemplateHead, task: Task, preset: Preset, line: int) -> str:
    if task.history is not None and task.turns is not None:
        message = "task.turns: with a 'history' one reply is written"
        raise refused(line, message, "template.task.turns")
    own = [] if task.history is not None and task.columns is None else task.columns or [TEXT]
    history = None if task.history is None else _checked(task.history, "history", line)
    parts = [preset.ask(task), *grounds(head, history), ""]
    return "\n".join([*parts, *_texts(own, line)])


def _checked(column: str, key: str, line: int) -> str:
    if '"' in column or "\\" in column or "\n" in column:
        message = f"task.{key}: a name has no quotes, backslashes or line breaks"
        raise refused(line, message, f"template.task.{key}")
    return _value(column)


def _check_options(task: Task, options: frozenset[str], line: int) -> None:
    for option in OPTIONS:
        if getattr(task, option) is not None and option not in options:
            message = f"task.{option}: '{task.name}' does not take it"
            raise refused(line, message, f"template.task.{option}")


def _language(language: str | None) -> str | None:
    return None if language is None else LANGUAGES.get(language, language)


def _gates(gates: GateRules, task: Task, words: int | None) -> GateRules:
    """What is asked for is also what is wanted, with half as much again to spare."""
    update: dict[str, object] = {}
    if words is not None and gates.max_words is None and (gates.min_words or 0) <= words:
        update["max_words"] = words + words // 2
    if gates.min_chars is None and gates.max_chars is None:
        update["min_chars"] = 1
    if task.language in LANGUAGES and gates.language is None:
        update["language"] = task.language
    if "finished" not in gates.model_fields_set:
        update["finished"] = True
    return gates.model_copy(update=update)


def _texts(columns: list[str], line: int) -> list[str]:
    """A single column stands alone; several have their names in front of them."""
    for column in columns:
        _checked(column, "columns", line)
    if len(columns) == 1:
        return [_reference(columns[0])]
    lines = [
        f"{{% if {_value(column)} %}}{column.replace('_', ' ').capitalize()}: "
        f"{_reference(column)}\n{{% endif %}}"
        for column in columns
    ]
    return ["".join(lines)]


def _value(column: str) -> str:
    return f'row["{column}"]'


def _reference(column: str) -> str:
    return f"{{{{ {_value(column)} }}}}"


def _in(task: Task) -> str:
    return f" in {task.language}" if task.language else ""


def _toned(task: Task) -> str:
    return f" The tone is {task.tone}." if task.tone else ""


def _summary(task: Task) -> str:
    return (
        f"Summarize the text below{_in(task)} in at most {task.words} words. Keep the most "
        f"important facts, names and numbers. Do not add anything that the text does not say."
        f"{_toned(task)}"
    )


def _translation(task: Task) -> str:
    return (
        f"Translate the text below into {task.language}. Keep its meaning, tone and formatting; "
        f"leave names, numbers and web addresses as they are.{_toned(task)}"
    )


def _dialogue(task: Task) -> str:
    if task.history is not None:
        return reply(task, _in(task), _toned(task))
    return (
        f"Write a dialogue{_in(task)} of about {task.turns or 8} lines about the situation below. "
        "Each line begins with the speaker's name and a colon. Let the speakers answer each "
        f"other.{_toned(task)}"
    )


def _headline(task: Task) -> str:
    return (
        f"Write one headline{_in(task)} of at most {task.words} words for the text below. It says "
        f"what is new, and promises nothing that the text does not keep.{_toned(task)}"
    )


def _ad_copy(task: Task) -> str:
    return (
        f"Write an advertisement{_in(task)} of at most {task.words} words for what is described "
        "below. Begin with what it does for the reader, name one or two of the facts given, and "
        f"end with a call to action. Invent no facts and no prices.{_toned(task)}"
    )


def _social_post(task: Task) -> str:
    return (
        f"Write one post{_in(task)} for social media, of at most {task.words} words, about what is "
        "described below. The first sentence makes people want to read on. End with one or two "
        f"hashtags.{_toned(task)}"
    )


PRESETS: dict[str, Preset] = {
    "summary": Preset(
        "You are a careful editor. Answer with the summary alone, without an introduction.",
        _summary,
        frozenset({"language", "tone", "words"}),
        60,
    ),
    "translation": Preset(
        "You are a professional translator. Answer with the translation alone, without notes.",
        _translation,
        frozenset({"language", "tone"}),
    ),
    "dialogue": Preset(
        "You write natural, lively dialogue. Answer with the dialogue alone.",
        _dialogue,
        frozenset({"language", "tone", "turns", "words", "history"}),
    ),
    "headline": Preset(
        "You write headlines for a newspaper. Answer with the headline alone, without quotation "
        "marks.",
        _headline,
        frozenset({"language", "tone", "words"}),
        12,
    ),
    "ad_copy": Preset(
        "You are an experienced copywriter. Answer with the text of the advertisement alone.",
        _ad_copy,
        frozenset({"language", "tone", "words"}),
        60,
    ),
    "social_post": Preset(
        "You write posts for a company's social media accounts. Answer with the post alone.",
        _social_post,
        frozenset({"language", "tone", "words"}),
        40,
    ),
}
