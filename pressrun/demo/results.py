"""What came back: every row's text or error, the totals, and ``summary.md``. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from pressrun.demo.rows import DemoRow, Models

EXTENSIONS = {"audio/mpeg": "mp3", "audio/wav": "wav", "audio/ogg": "ogg", "audio/flac": "flac"}


@dataclass(frozen=True, slots=True)
class MediaFile:
    """A picture or a voice-over that a row made."""

    custom_id: str
    artifact_id: str
    path: str
    """Where the demo puts it, below its folder."""


@dataclass(frozen=True, slots=True)
class DemoResults:
    """Results by ``custom_id``, and what they cost."""

    rows: list[DemoRow]
    texts: dict[str, str]
    files: list[MediaFile]
    errors: dict[str, str]
    """Code and message of rows that failed."""
    input_tokens: int
    output_tokens: int
    seconds: float
    """From the submission to the end of the batch."""

    @property
    def missing(self) -> list[str]:
        """Rows without any result."""
        known = self.texts.keys() | self.errors.keys() | {file.custom_id for file in self.files}
        return [row.custom_id for row in self.rows if row.custom_id not in known]

    @property
    def completed(self) -> int:
        return len(self.texts) + len(self.files)

    @property
    def rows_per_second(self) -> float:
        return self.completed / max(self.seconds, 0.001)


def collect(
    rows: list[DemoRow], output: Iterable[str], errors: Iterable[str], seconds: float
) -> DemoResults:
    """Reads the lines of the batch's two files."""
    texts: dict[str, str] = {}
    files: list[MediaFile] = []
    tokens = [0, 0]
    for line in map(json.loads, filter(str.strip, output)):
        body = line["response"]["body"]
        if "choices" not in body:
            files.append(_media_file(line["custom_id"], body))
            continue
        texts[line["custom_id"]] = body["choices"][0]["message"]["content"].strip()
        tokens[0] += body["usage"]["prompt_tokens"]
        tokens[1] += body["usage"]["completion_tokens"]
    failed = {
        line["custom_id"]: _reason(line) for line in map(json.loads, filter(str.strip, errors))
    }
    return DemoResults(rows, texts, files, failed, tokens[0], tokens[1], seconds)


def _media_file(custom_id: str, body: dict[str, Any]) -> MediaFile:
    if "data" in body:
        artifact_id, extension = body["data"][0]["artifact_id"], body["output_format"]
        return MediaFile(custom_id, artifact_id, f"pictures/{custom_id}.{extension}")
    extension = EXTENSIONS.get(body["media_type"], "bin")
    return MediaFile(custom_id, body["artifact_id"], f"voice-overs/{custom_id}.{extension}")


def _reason(line: dict[str, Any]) -> str:
    error = line.get("error") or line["response"]["body"]["error"]
    return f"{error['message']} ({error['code']})"


def summary_markdown(results: DemoResults, *, models: Models, batch_id: str) -> str:
    """``summary.md``: counts, then every row with its result."""
    head = [
        "# Demo batch",
        "",
        f"- batch: `{batch_id}`",
        f"- models: `{models.text}`, `{models.image}`, `{models.speech}`",
        f"- rows: {len(results.rows)}, of which {results.completed} completed, "
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
    made = next((file for file in results.files if file.custom_id == row.custom_id), None)
    if made is not None:
        text = f"![{row.custom_id}]({made.path})" if "pictures" in made.path else f"`{made.path}`"
    if text is None:
        text = f"failed: {results.errors.get(row.custom_id, 'no result')}"
    return f"\n### {row.custom_id}\n\n{_quote(row.prompt)}\n\n{text}"


def _quote(text: str) -> str:
    return "\n".join(f"> {line}".rstrip() for line in text.splitlines())
