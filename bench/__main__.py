"""``python -m bench``: measures the figures, prints one table, writes ``bench/results.json``."""

from __future__ import annotations

import argparse
import signal
import sys
import time
import traceback
from pathlib import Path

from rich.console import Console

from bench.figures import FIGURES, Figure
from bench.machine import in_words, machine
from bench.report import (
    Measurement,
    ReportError,
    Result,
    merge,
    put_in_page,
    read_results,
    terminal_table,
    write_results,
)
from bench.rig import Rig
from shared.telemetry import configure_logging

RESULTS = Path(__file__).with_name("results.json")
PAGE = Path(__file__).resolve().parents[1] / "docs" / "benchmarks.md"


def main() -> int:
    """0 when everything asked for was measured, reached or not; 1 when something broke."""
    given = _arguments()
    console = Console()
    configure_logging("ERROR", "console", process="bench")
    try:
        if given.list:
            for figure in FIGURES:
                console.print(f"{figure.name} {figure.must_reach}", highlight=False)
            return 0
        if given.write_docs:
            return _write_docs(console)
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
        chosen = [figure for figure in FIGURES if given.only is None or figure.name in given.only]
        earlier = read_results(given.output)
        results, broken = _measure(chosen, console, quick=given.quick, models=given.models)
        write_results(given.output, merge(earlier, results, [item.name for item in FIGURES]))
    except (ReportError, OSError) as error:
        console.print(f"bench: {error}", style="red")
        return 1
    console.print(terminal_table(results))
    _conclude(console, results, broken)
    return 1 if broken else 0


def _arguments() -> argparse.Namespace:
    names = [figure.name for figure in FIGURES]
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=names, help="these figures")
    parser.add_argument("--quick", action="store_true", help="one short round: for trying it out")
    parser.add_argument("--list", action="store_true", help="the names and what they must reach")
    parser.add_argument("--models", type=Path, help="a folder that has the starter models already")
    parser.add_argument("--output", type=Path, default=RESULTS, help="default: bench/results.json")
    parser.add_argument(
        "--write-docs", action="store_true", help="put bench/results.json into docs/benchmarks.md"
    )
    return parser.parse_args()


def _measure(
    chosen: list[Figure], console: Console, *, quick: bool, models: Path | None
) -> tuple[list[Result], list[str]]:
    """The results, and the names of figures that could not be measured."""
    results: list[Result] = []
    broken: list[str] = []
    with Rig(quick=quick, models=models) as rig:
        for figure in chosen:
            began = time.monotonic()
            console.print(f"{figure.name} …", highlight=False)
            try:
                measured = figure.measure(rig)
            except Exception:
                broken.append(figure.name)
                console.print(traceback.format_exc(), style="red", markup=False, highlight=False)
                continue
            seconds = time.monotonic() - began
            results.append(_result(figure, measured, quick=quick, seconds=seconds))
            console.print(f"  {results[-1].value:g} in {seconds:.0f} s", highlight=False)
    return results, broken


def _result(figure: Figure, measured: Measurement, *, quick: bool, seconds: float) -> Result:
    about = {"quick": quick, "took_seconds": seconds, "machine": machine()}
    whole = Measurement(measured.value, measured.detail | about)
    return Result.of(figure.name, figure.must_reach, whole)


def _conclude(console: Console, results: list[Result], broken: list[str]) -> None:
    missed = [result.name for result in results if not result.reached]
    if missed:
        console.print(f"missed: {', '.join(missed)}", style="yellow")
    if broken:
        console.print(f"not measured, see above: {', '.join(broken)}", style="red")
    if results and not missed and not broken:
        console.print("every figure is reached", style="green")


def _write_docs(console: Console) -> int:
    results = read_results(RESULTS)
    if not results:
        raise ReportError(f"there is no {RESULTS}: run python -m bench first")
    PAGE.write_text(put_in_page(PAGE.read_text(), results, machine=in_words(results)))
    console.print(f"wrote {PAGE}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
