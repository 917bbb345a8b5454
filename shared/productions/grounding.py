"""Parts of presets' prompts: what has been said in a conversation, and what a text rests on."""

from __future__ import annotations

from collections.abc import Iterator

from shared.productions.specs import Task, TemplateHead

REPLY_SYSTEM = (
    "You take part in a conversation. Answer with your next reply alone, without the name of the "
    "speaker."
)
FROM_SOURCES = (
    "Say nothing but what the numbered sources say, and cite each that you use by its number, such "
    "as [1]."
)


def reply(task: Task, language: str, tone: str) -> str:
    """Of a dialogue with a history."""
    limit = f", in at most {task.words} words" if task.words else ""
    return f"Write the next reply{language} in the conversation below{limit}.{tone}"


def grounds(head: TemplateHead, history: str | None) -> Iterator[str]:
    """What stands between the question and the row's own texts, line by line; ``history`` is how
    the body refers to the column."""
    if head.documents is not None:
        yield from (FROM_SOURCES, "", "Sources:", "{{ sources }}")
    if history is not None:
        yield from ("", "The conversation so far:", *_said(history))


def _said(history: str) -> Iterator[str]:
    """A text, or a list of turns with ``role`` and ``content``."""
    yield f"{{% if {history} is list %}}"
    yield f"{{% for turn in {history} %}}"
    yield "{{ turn.role }}: {{ turn.content }}"
    yield "{% endfor %}"
    yield "{% else %}"
    yield f"{{{{ {history} }}}}"
    yield "{% endif %}"
