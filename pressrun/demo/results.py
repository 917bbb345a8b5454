"""What came back: every row's text or error, the totals, and ``summary.md``. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from pressrun.demo.rows import DemoRow


@dataclass(frozen=True, slots=True)
class DemoResults:
    """Results by ``custom_id``, and what they cost."""

    rows: list[DemoRow]
    texts: dict[str, str]
    errors: dict[str, str]
    """Code and message of rows that failed."""
    input_tokens: int
    output_tokens: int
    seconds: float
    """From the submission to the end of the batch."""

    @property
    def missing(self) -> list[str]:
        """Rows without any result."""
        known = self.texts.keys() | self.errors.keys()
        return [row.custom_id for row in self.rows if row.custom_id not in known]

    @property
    def rows_per_second(self) -> float:
        return len(self.texts) / max(self.seconds, 0.001)


def collect(
    rows: list[DemoRow], output: Iterable[str], errors: Iterable[str], seconds: float
) -> DemoResults:
    """Reads the lines of the batch's two files."""
    texts: dict[str, str] = {}
    tokens = [0, 0]
    for line in map(json.loads, filter(str.strip, output)):
        body = line["response"]["body"]
        texts[line["custom_id"]] = body["choices"][0]["message"]["content"].strip()
        tokens[0] += body["usage"]["prompt_tokens"]
        tokens[1] += body["usage"]["completion_tokens"]
    failed = {
        line["custom_id"]: _reason(line) for line in map(json.loads, filter(str.strip, errors))
    }
    return DemoResults(rows, texts, failed, tokens[0], tokens[1], seconds)


def _reason(line: dict[str, Any]) -> str:
    error = line.get("error") or line["response"]["body"]["error"]
    return f"{error['message']} ({error['code']})"


def summary_markdown(results: DemoResults, *, model: str, batch_id: str) -> str:
    """``summary.md``: counts, then every row with its result."""
    head = [
        "# Demo batch",
        "",
        f"- batch: `{batch_id}`",
        f"- model: `{model}`",
        f"- rows: {len(results.rows)}, of which {len(results.texts)} completed, "
        f"{len(results.errors)} failed, {len(results.missing)} missing",
        f"- tokens: {results.input_tokens} in, {results.output_tokens} out",
        f"- time: {results.seconds:.1f} s from submission to the end, "
        f"{results.rows_per_second:.2f} rows/s, "
        f"{results.output_tokens / max(results.seconds, 0.001):.0f} generated tokens/s",
        "",
        "## Results",
    ]
    return "\n".join([*head, *(_section(row, results) for row in results.rows)]) + "\n"


def _section(row: DemoRow, results: DemoResults) -> str:
    text = results.texts.get(row.custom_id)
    if text is None:
        text = f"failed: {results.errors.get(row.custom_id, 'no result')}"
    return f"\n### {row.custom_id}\n\n{_quote(row.prompt)}\n\n{text}"


def _quote(text: str) -> str:
    return "\n".join(f"> {line}".rstrip() for line in text.splitlines())
