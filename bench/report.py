"""What a run of the benchmarks says: targets, results.json, the tables."""

from __future__ import annotations

import json
import math
import operator
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

GREEDY = "greedy_rows_that_differ_in_a_microbatch"
"""In the detail of the text figures: the share of rows by dtype."""
BEGIN_MARK = "<!-- results: begin (python -m bench --write-docs) -->"
END_MARK = "<!-- results: end -->"

_COMPARISONS: dict[str, Callable[[float, float], bool]] = {">=": operator.ge, "<=": operator.le}
_SHORT_DETAIL = 3


class ReportError(Exception):
    """A file of results or the page for them can't be used."""


@dataclass(frozen=True, slots=True)
class Target:
    """A bound that a figure must reach: ``>= 0.70`` or ``<= 150``."""

    comparison: str
    bound: float
    text: str

    @classmethod
    def parse(cls, text: str) -> Target:
        """Raises ValueError for anything but ``>=`` or ``<=`` and a finite number."""
        comparison, _, number = text.partition(" ")
        if comparison not in _COMPARISONS:
            raise ValueError(f"a target begins with '>= ' or '<= ', not {text!r}")
        bound = float(number)
        if not math.isfinite(bound):
            raise ValueError(f"no figure can be compared with {text!r}")
        return cls(comparison, bound, text)

    def is_reached_by(self, value: float) -> bool:
        """NaN reaches nothing."""
        return _COMPARISONS[self.comparison](value, self.bound)


@dataclass(frozen=True, slots=True)
class Measurement:
    """What a figure's function returns: the number, and all that was measured to get it."""

    value: float
    detail: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Result:
    """One figure of one run, as ``results.json`` keeps it."""

    name: str
    value: float
    must_reach: str
    reached: bool
    detail: dict[str, Any]

    @classmethod
    def of(cls, name: str, must_reach: str, measured: Measurement) -> Result:
        """``reached`` follows from the value, before it is rounded for people."""
        reached = Target.parse(must_reach).is_reached_by(measured.value)
        return cls(name, rounded(measured.value), must_reach, reached, rounded(measured.detail))


def rounded(value: Any) -> Any:
    """Every float in ``value`` to four significant digits, inside dicts and lists too."""
    match value:
        case float():
            return float(f"{value:.4g}")
        case dict():
            return {str(key): rounded(item) for key, item in value.items()}
        case list() | tuple():
            return [rounded(item) for item in value]
        case _:
            return value


def median(samples: Iterable[float]) -> float:
    return statistics.median(samples)


def interleave(rounds: int, sides: dict[str, Callable[[], float]]) -> dict[str, list[float]]:
    """Measures every side once a round, in turn, so that a noisy minute falls on all of them."""
    samples: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, measure in sides.items():
            samples[name].append(measure())
    return samples


def read_results(path: Path) -> list[Result]:
    """The results of earlier runs; none when there is no file. Raises ReportError."""
    if not path.exists():
        return []
    try:
        return [Result(**item) for item in json.loads(path.read_text())]
    except (ValueError, TypeError) as error:
        raise ReportError(f"{path}: {error}") from None


def merge(earlier: Sequence[Result], new: Sequence[Result], order: Sequence[str]) -> list[Result]:
    """New results in place of those of the same name, in ``order``; unknown names are dropped."""
    by_name = {result.name: result for result in (*earlier, *new)}
    return [by_name[name] for name in order if name in by_name]


def write_results(path: Path, results: Sequence[Result]) -> None:
    path.write_text(json.dumps([asdict(result) for result in results], indent=2) + "\n")


def terminal_table(results: Sequence[Result]) -> Table:
    """For people who watch the run."""
    table = Table("figure", "value", "must reach", "reached", "measured", title="Benchmarks")
    for result in results:
        verdict = "[green]yes[/]" if result.reached else "[red]no[/]"
        table.add_row(
            result.name, f"{result.value:g}", result.must_reach, verdict, sides_of(result)
        )
    return table


def markdown_table(results: Sequence[Result]) -> str:
    """For the page in docs/."""
    lines = [
        "| figure | value | must reach | reached | measured | at commit |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| `{result.name}` | {result.value:g} | {result.must_reach} "
        f"| {'yes' if result.reached else '**no**'} | {sides_of(result)} | {_run_of(result)} |"
        for result in results
    ]
    return "\n".join(lines)


def sides_of(result: Result) -> str:
    """The two sides in a few words: ``ours 812 jobs/s, celery 640 jobs/s``."""
    unit = result.detail.get("unit", "")
    sides = result.detail.get("sides", {})
    shown = [f"{name} {value:g} {unit}".strip() for name, value in sides.items()]
    if unit and not shown:
        shown = [unit]
    quick = ["quick run"] if result.detail.get("quick") else []
    return ", ".join(shown[:_SHORT_DETAIL] + quick)


def _run_of(result: Result) -> str:
    found = result.detail.get("machine", {})
    return f"{found.get('commit', '?')}, {found.get('measured_at', '?')[:10]}"


def greedy_remark(results: Sequence[Result]) -> str:
    """One sentence on what floating point does to greedy rows; empty when it was not measured."""
    for result in results:
        if shares := result.detail.get(GREEDY):
            told = ", ".join(f"{share:.0%} in {dtype}" for dtype, share in shares.items())
            return f"Greedy rows whose text differs alone and in a microbatch: {told}.\n\n"
    return ""


def put_in_page(page: str, results: Sequence[Result], *, machine: str) -> str:
    """The page with the table of ``results`` between its marks. Raises ReportError."""
    before, begin, rest = page.partition(BEGIN_MARK)
    _, end, after = rest.partition(END_MARK)
    if not begin or not end:
        raise ReportError(f"the page has no {BEGIN_MARK} and {END_MARK}")
    told = f"{machine}\n\n{markdown_table(results)}\n\n{greedy_remark(results)}"
    return f"{before}{BEGIN_MARK}\n\n{told}{END_MARK}{after}"
