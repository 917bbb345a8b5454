"""What ``task: augment`` fills in, and what it goes together with."""

from __future__ import annotations

from typing import Any

from shared.productions.head import refused
from shared.productions.languages import LANGUAGES
from shared.productions.specs import GateRules, Task, TemplateHead

RETRIES = 5
SIMILARITY = 0.6
"""From which on a text is a near-duplicate, where ``gates`` do not say."""
TEMPERATURE = 0.8
CLASSIFICATION, CHAT = "classification", "chat"
PAIR: dict[str, Any] = {
    "type": "object",
    "properties": {"user": {"type": "string"}, "assistant": {"type": "string"}},
    "required": ["user", "assistant"],
    "additionalProperties": False,
}
"""What the model answers where a row is a chat."""
_SYSTEM = "You write varied, realistic texts from which a program learns. Answer with {0} alone."


def with_augmenting(
    head: TemplateHead, body: str, line: int, language: str | None
) -> tuple[TemplateHead, str]:
    """The head and body of a template whose task is ``augment``, whole; ``language`` by its name.
    Raises InvalidRequest."""
    task = head.task
    if task is None:
        raise AssertionError("there is no task")
    _check(head, task, line)
    task = task.model_copy(update={"form": task.form or CLASSIFICATION})
    is_chat = task.form == CHAT
    update: dict[str, object] = {"task": task, "gates": _gates(head.gates, task)}
    if is_chat:
        update["json_schema"] = PAIR
    if head.system is None:
        update["system"] = _SYSTEM.format("the JSON" if is_chat else "the text")
    if "retries" not in head.model_fields_set:
        update["retries"] = RETRIES
    if head.sampling.temperature is None:
        update["sampling"] = head.sampling.model_copy(update={"temperature": TEMPERATURE})
    if not body.strip():
        body = _body(task, language)
    return head.model_copy(update=update), body


def _check(head: TemplateHead, task: Task, line: int) -> None:
    """Raises InvalidRequest."""
    if task.rows is None and not isinstance(task.labels, dict):
        message = "task.rows: say how many rows, or how many of each label"
        raise refused(line, message, "template.task.rows")
    if task.rows is not None and isinstance(task.labels, dict):
        message = "task.rows: 'labels' say how many already"
        raise refused(line, message, "template.task.rows")
    if task.labels is not None and task.form not in (None, CLASSIFICATION):
        message = f"task.labels: examples of the form '{task.form}' have none"
        raise refused(line, message, "template.task.labels")
    counts = task.labels.values() if isinstance(task.labels, dict) else [task.rows or 0]
    if sum(counts) < 1:
        raise refused(line, "task.labels: nothing is to be written", "template.task.labels")
    unfit = {
        "audiences": head.audiences is not None,
        "documents": head.documents is not None,
        "schema": head.json_schema is not None,
        "n": head.n > 1 and head.best_of is None,
        "models": head.models is not None and len(head.models) > 1 and head.best_of is None,
    }
    for key, there in unfit.items():
        if there:
            why = " without 'best_of'" if key in ("n", "models") else ""
            message = f"{key}: it does not go with 'task: augment'{why}"
            raise refused(line, message, f"template.{key}")


def _gates(gates: GateRules, task: Task) -> GateRules:
    update: dict[str, object] = {}
    if gates.near_duplicates is None:
        update["near_duplicates"] = SIMILARITY
    if task.language in LANGUAGES and gates.language is None:
        update["language"] = task.language
    return gates.model_copy(update=update)


def _body(task: Task, language: str | None) -> str:
    """A row's examples are shown as turns before it, with the same request but for the hints."""
    before, what = "", "a text"
    if task.form == CLASSIFICATION:
        what = 'a text with the label "{{ label }}"'
    elif task.form == CHAT:
        before = "{% if system %}An assistant was told: {{ system }}\n\n{% endif %}"
        what = "a question to an assistant and its answer, as JSON"
    told = f" in {language}" if language else ""
    tone = f" The tone is {task.tone}." if task.tone else ""
    hints = "{% if topic %}, as {{ writer }} would write it, with {{ topic }} in it{% endif %}"
    return f"{before}Write {what}{told}{hints}, in about {{{{ words }}}} words.{tone}"
