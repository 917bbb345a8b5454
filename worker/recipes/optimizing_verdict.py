"""Whether a smaller model is good enough, and the table that says what it costs and saves. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

Sides = Mapping[str, float | int | None]
_MIB = 2**20
_TITLES = {
    "disk_bytes": "size on disk, MiB",
    "weights_bytes": "weights in memory, MiB",
    "resident_bytes": "memory once it has answered, MiB",
    "peak_bytes": "most memory until then, MiB",
    "tokens_per_second_alone": "tokens a second, one row",
    "tokens_per_second_together": "tokens a second, 8 rows",
    "rows_per_second": "rows a second",
}


def drop_of(before: float | None, after: float | None, *, goes_up: bool) -> float | None:
    """By how large a part of its value the metric got worse; below zero: better. None: it is no
    number any more. What was worth nothing before can't get worse."""
    if before is None or after is None or not math.isfinite(after):
        return None
    worse = before - after if goes_up else after - before
    if before == 0:
        return 0.0 if worse <= 0 else math.inf
    return worse / abs(before)


def refusal(metric: str, sides: Sides, *, goes_up: bool, most: float) -> str | None:
    """Why the model must not be offered; None for one that may."""
    drop = drop_of(sides["before"], sides["after"], goes_up=goes_up)
    if drop is None:
        return f"{metric} is no number any more (before: {_number(sides['before'])})"
    if drop <= most:
        return None
    return (
        f"{metric} went from {_number(sides['before'])} to {_number(sides['after'])}, "
        f"{drop:.1%} worse; {most:.1%} is the most (max_drop)"
    )


def as_markdown(name: str, table: Mapping[str, Any], verdict: str | None) -> str:
    """report.md: what was measured, a line each."""
    lines = [f"# {name}", "", f"Made of `{table['made_of']}`: {_method(table['method'])}.", ""]
    lines += ["| | before | after | ratio |", "|---|---:|---:|---:|"]
    for key, title in _TITLES.items():
        if key in table["costs"]:
            lines.append(_line(title, table["costs"][key], mib=key.endswith("_bytes")))
    lines += ["", f"Quality on {table['examples']:,} examples:", ""]
    lines += ["| | before | after | ratio |", "|---|---:|---:|---:|"]
    lines += [_line(metric, sides) for metric, sides in table["quality"].items()]
    lines += [
        "",
        f"Judged by `{table['metric']}`, which may get worse by {table['max_drop']:.1%}: ",
    ]
    lines[-1] += "it may be served." if verdict is None else f"not offered. {verdict}."
    lines += ["", *(f"- {note}" for note in table["notes"])]
    return "\n".join(lines).rstrip() + "\n"


def notes_on(method: Mapping[str, Any]) -> list[str]:
    """What a reader of the table has to know."""
    if method["type"] == "quantize":
        return [
            "Only linear layers inside the model are quantised; embeddings and output layers stay.",
            "On CPUs in bfloat16 torch's kernels for whole numbers are used: they help where few "
            "rows run at a time, and lose to dense products in large microbatches. On other "
            "devices weights are turned back for every product, which saves memory and no time.",
        ]
    if method["type"] == "prune" and method["structure"] == "unstructured":
        return [
            "Zeros are stored and multiplied with like any other number: neither size nor speed "
            "gains by them. They are a start for a training that keeps them, or for hardware "
            "that skips them."
        ]
    if method["type"] == "prune":
        return ["Channels were chosen by the size of their weights, and nothing was trained since."]
    return ["Updates are added in float32 and rounded once, to the dtype of the base's files."]


def _method(method: Mapping[str, Any]) -> str:
    if method["type"] == "merge":
        return "its adapter merged into its base"
    if method["type"] == "quantize":
        return f"weights in {method['scheme']}"
    return f"{method['amount']:.0%} pruned, {method['structure']}"


def _line(title: str, sides: Sides, *, mib: bool = False) -> str:
    before, after = sides["before"], sides["after"]
    ratio = f"{after / before:.2f}" if before and after is not None else "–"
    unit = _MIB if mib else 1
    shown = [_number(None if side is None else side / unit) for side in (before, after)]
    return f"| {title} | {shown[0]} | {shown[1]} | {ratio} |"


def _number(value: float | int | None) -> str:
    if value is None:
        return "–"
    return f"{value:,.1f}" if abs(value) >= 100 else f"{value:.4g}"  # noqa: PLR2004 - digits
