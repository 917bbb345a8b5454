"""Productions as a terminal shows them to somebody who looks rather than reads: parts of a whole as
a bar, gates with how often they refused, prompts as a conversation. What is piped is plain."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from pressrun.api_client import Json
from pressrun.terminal import visible

BAR = 48
"""Signs of a bar that is a whole."""
SMALL_BAR = 24
ENDS = (
    ("succeeded", "succeeded", "█", "green"),
    ("rejected", "rejected", "▓", "yellow"),
    ("failed", "failed", "▒", "red"),
    ("not_found", "not found", "░", "cyan"),
)
"""How lines end: the key, its name, its sign (for those who see no colours) and its colour."""
ROLES = {"system": "magenta", "user": "cyan", "assistant": "green"}


def pictured_counts(summary: Json) -> RenderableType:
    """The summary of an ended production."""
    parts: list[RenderableType] = [_headline(summary), _whole(summary), _legend(summary)]
    refusals = summary.get("refusals") or summary["rejected_by_gate"]
    if refusals:
        parts += ["", _gates(refusals, summary["rejected_by_gate"])]
    if summary["failed_by_code"]:
        parts += ["", _bars("failed with", "lines", summary["failed_by_code"].items(), "red")]
    if summary.get("labels"):
        parts += ["", _labels(summary["labels"])]
    return Group(*parts, "", *(Text(line, style="dim") for line in _small_print(summary)))


def conversation(messages: Iterable[tuple[str, str]]) -> Table:
    """Messages of a chat, each beside its role."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(justify="right", min_width=max(map(len, ROLES)) + 2, no_wrap=True)
    grid.add_column(overflow="fold")
    for role, content in messages:
        style = "" if role == "user" else "dim"
        grid.add_row(
            Text(role, style=ROLES.get(role, "")), Text(visible(content.strip()), style=style)
        )
    return grid


def widths(counts: Sequence[int], width: int) -> list[int]:
    """How wide each part of a bar is: together ``width``, in proportion, and at least one sign for
    whatever there is any of."""
    total = sum(counts)
    if not total:
        return [0] * len(counts)
    found = [max(round(count * width / total), 1) if count else 0 for count in counts]
    while (over := sum(found) - width) != 0:
        at = max(range(len(found)), key=found.__getitem__)
        found[at] -= 1 if over > 0 else -1
    return found


def _headline(summary: Json) -> Text:
    kept, lines = summary["succeeded"], summary["lines"]
    share = f" ({kept / lines:.0%})" if lines else ""
    return Text(f"{kept:,} of {lines:,} lines kept{share}", style="bold")


def _whole(summary: Json) -> Text:
    bar = Text()
    counts = [summary[key] for key, *_ in ENDS]
    for width, (_, _, sign, colour) in zip(widths(counts, BAR), ENDS, strict=True):
        bar.append(sign * width, style=colour)
    return bar


def _legend(summary: Json) -> Text:
    legend = Text()
    for key, name, sign, colour in ENDS:
        if summary[key]:
            legend.append(f"{sign} ", style=colour).append(f"{summary[key]:,} {name}   ")
    return legend


def _gates(refusals: Json, rejected: Json) -> Table:
    made = _table("gate", "refused", "rejected", "")
    most = max(refusals.values())
    for gate, count in sorted(refusals.items(), key=lambda found: (-found[1], found[0])):
        for_good = rejected.get(gate, 0)
        made.add_row(visible(gate), f"{count:,}", f"{for_good:,}", _bar(count, most, "yellow"))
    return made


def _labels(labels: Json) -> Table:
    made = _table("label", "rows", "asked", "")
    for label, count in labels.items():
        colour = "green" if count["made"] >= count["asked"] else "yellow"
        bar = _bar(count["made"], count["asked"], colour)
        made.add_row(visible(label), f"{count['made']:,}", f"{count['asked']:,}", bar)
    return made


def _bars(title: str, unit: str, counts: Iterable[tuple[str, int]], colour: str) -> Table:
    made, rows = _table(title, unit, ""), list(counts)
    most = max(count for _, count in rows)
    for name, count in rows:
        made.add_row(visible(name), f"{count:,}", _bar(count, most, colour))
    return made


def _table(name: str, *others: str) -> Table:
    made = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    made.add_column(name, overflow="fold")
    for title in others:
        made.add_column(title, justify="right" if title else "left", no_wrap=True)
    return made


def _bar(count: int, most: int, colour: str) -> Text:
    width = round(min(count, most) * SMALL_BAR / most) if most else 0
    return Text("█" * max(width, 1 if count else 0), style=colour)


def _small_print(summary: Json) -> tuple[str, str]:
    """What is less often asked for."""
    counted = ("rows", "items", "candidates", "rounds", "regenerated")
    facts = [f"{key} {summary[key]:,}" for key in counted]
    facts.append(f"near-duplicates removed {summary['duplicates_removed']:,}")
    tokens = f"{summary['input_tokens']:,} tokens in, {summary['output_tokens']:,} out"
    return " · ".join(facts), tokens
