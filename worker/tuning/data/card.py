"""``dataset-card.md``: what a fine-tuning's data are, for people. None of their texts is in it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from worker.tuning.data.examined import Examined
from worker.tuning.data.example import shown
from worker.tuning.data.formats import DRAWING

FILENAME = "dataset-card.md"
MEDIA_TYPE = "text/markdown"
MOST_LABELS = 100
BAR = 30
"""Characters of the longest bar."""


def dataset_card(
    examined: Examined,
    *,
    job_id: str,
    filenames: Sequence[str],
    estimate: Mapping[str, Any] | None = None,
) -> str:
    """Markdown. ``filenames`` are the training file's and, when there is one, the validation
    file's, as the tenant called them."""
    sections = [
        f"# Data of {job_id}",
        _facts(examined, filenames),
        _lengths(examined),
        _labels(examined.labels, "tags" if examined.recipe == "token_classification" else "labels"),
        _warnings(examined.warnings),
        _estimate(estimate or {}),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _facts(examined: Examined, filenames: Sequence[str]) -> str:
    origin = "held out of the training file" if examined.held_out else "of the validation file"
    facts = [
        ("recipe", examined.recipe),
        ("training file", f"{_safe(filenames[0])} ({examined.format})"),
        ("fields of its first example", ", ".join(_safe(each) for each in examined.fields)),
        ("examples to train on", f"{examined.examples:,}"),
        ("examples to validate on", f"{examined.validation_examples:,}, {origin}"),
        ("bytes uploaded", f"{examined.bytes:,}"),
        ("SHA-256", f"`{examined.digest}`"),
    ]
    if len(filenames) > 1:
        named = f"{_safe(filenames[1])} ({examined.validation_format})"
        facts.insert(3, ("validation file", named))
    if examined.characters:
        facts.append(("characters in the training file", f"{examined.characters:,}"))
        facts.append(("tokens, at four characters each", f"about {examined.tokens:,}"))
    return _table(("", ""), facts)


def _lengths(examined: Examined) -> str:
    parts = []
    if examined.characters:
        title = "## Lengths of the training file's examples\n\nTokens are approximate."
        parts.append(f"{title}\n\n{_bars('tokens', examined.lengths)}")
    if examined.recipe in DRAWING and examined.sides:
        title = "## Sizes of the training file's pictures"
        parts.append(f"{title}\n\n{_bars('pixels of the shorter side', examined.sides)}")
    return "\n\n".join(parts)


def _bars(what: str, counts: Sequence[Mapping[str, int]]) -> str:
    most = max(each["examples"] for each in counts)
    rows = [
        (f"up to {each['up_to']:,}", f"{each['examples']:,}", _bar(each["examples"], most))
        for each in counts
    ]
    return _table((what, "examples", ""), rows)


def _labels(labels: Mapping[str, int], what: str) -> str:
    if not labels:
        return ""
    most, total = max(labels.values()), sum(labels.values())
    ordered = sorted(labels.items(), key=lambda item: (-item[1], item[0]))
    rows = [
        (_safe(label), f"{count:,}", f"{100 * count / total:.1f} %", _bar(count, most))
        for label, count in ordered[:MOST_LABELS]
    ]
    left = len(labels) - len(rows)
    more = f"\n\n{left:,} rarer {what} are not shown." if left else ""
    balance = f"{len(labels):,} {what}; the most frequent has {most / min(labels.values()):.1f} "
    table = _table((what, "count", "share", ""), rows)
    return f"## Balance of {what}\n\n{balance}times the rarest.\n\n{table}{more}"


def _warnings(warnings: Sequence[str]) -> str:
    said = "\n".join(f"- {_safe(warning)}" for warning in warnings) or "None."
    return f"## Warnings\n\n{said}"


def _estimate(estimate: Mapping[str, Any]) -> str:
    computed = estimate.get("computed", {})
    rows = [
        (name.replace("_", " "), f"{value:,}", computed.get(name, ""))
        for name, value in estimate.items()
        if name != "computed"
    ]
    return f"## Estimate\n\n{_table(('', '', 'computed from'), rows)}" if rows else ""


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _bar(count: int, most: int) -> str:
    return "█" * max(1, round(BAR * count / most))


def _safe(words: str) -> str:
    """A tenant's words in a cell: neither Markdown nor HTML."""
    plain = shown(words)
    return "".join(f"\\{c}" if c in "\\`*_{}[]<>()#+!|~&" else c for c in plain)
