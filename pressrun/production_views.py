"""Productions for people: their counts, a preview, a list."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.rule import Rule
from rich.text import Text

from pressrun.api_client import Json
from pressrun.batch_commands import estimated
from pressrun.production_pictures import conversation, pictured_counts
from pressrun.terminal import table, when

LONGEST_SHOWN = 2_000
"""Characters of a message in a preview."""


def described(production: Json, *, pictured: bool = False) -> RenderableType:
    """How far it is; its counts, once it has ended."""
    batch = production["batch"]
    fields = {
        "id": production["id"],
        "status": production["status"],
        "models": ", ".join(production["models"]),
        "created": when(production["created_at"]),
        "rows": production["rows"],
        "lines": f"{production['kept']} kept of {production['lines']}",
        "round": f"{production['round'] + 1}, phase {production['phase'] + 1} of"
        f" {production['phases']}",
        "batch": None if batch is None else f"{batch['id']}: {batch['done']} of {batch['rows']}",
        "output file": production["output_file_id"],
    }
    shown = table("", "", rows=fields.items(), headed=False)
    if production["summary"] is None:
        return shown
    return Group(shown, counts(production, pictured=pictured))


def counts(production: Json, *, pictured: bool = False) -> RenderableType:
    """The summary of an ended production, or the estimate of a dry run; a line for each number, or
    ``pictured`` for a terminal."""
    summary = production["summary"]
    if summary is None:
        found = {"status": production["status"], **estimated(production["estimate"])}
        return table("", "", rows=found.items(), headed=False)
    if pictured:
        return pictured_counts(summary)
    rows: list[tuple[str, object]] = [
        ("rows", summary["rows"]),
        ("items", summary["items"]),
        ("candidates", summary["candidates"]),
        ("lines", summary["lines"]),
        ("  succeeded", summary["succeeded"]),
        ("  rejected", summary["rejected"]),
        *((f"    by {gate}", count) for gate, count in summary["rejected_by_gate"].items()),
        ("  failed", summary["failed"]),
        *((f"    with {code}", count) for code, count in summary["failed_by_code"].items()),
        ("  not found", summary["not_found"]),
        ("rounds", summary["rounds"]),
        ("regenerated", summary["regenerated"]),
        ("near-duplicates removed", summary["duplicates_removed"]),
        ("tokens", f"{summary['input_tokens']} in, {summary['output_tokens']} out"),
        *(
            (f"label {label}", f"{count['made']} of {count['asked']}")
            for label, count in (summary.get("labels") or {}).items()
        ),
    ]
    return table("", "", rows=rows, headed=False)


def listing(productions: list[Json]) -> RenderableType:
    return table(
        "id",
        "status",
        "rows",
        "kept",
        "lines",
        "created",
        rows=(
            (p["id"], p["status"], p["rows"], p["kept"], p["lines"], when(p["created_at"]))
            for p in productions
        ),
    )


def previewed(preview: Json, *, pictured: bool = False) -> RenderableType:
    """Every message of every item, as it would be asked."""
    many = "1 candidate" if preview["candidates"] == 1 else f"{preview['candidates']} candidates"
    parts: list[RenderableType] = [Text(f"{many} an item, by {', '.join(preview['models'])}")]
    for item in preview["data"]:
        audience = f" for {item['audience']}" if item["audience"] is not None else ""
        title = Text(f"row {item['row']}{audience}", style="bold")
        parts += ["", Rule(title, align="left", style="dim") if pictured else title]
        if item["error"] is not None:
            parts.append(Text(f"  can't be asked: {item['error']}", style="red"))
        for prompt in item["prompts"]:
            if prompt["step"] is not None:
                parts.append(Text(f"  step {prompt['step']}", style="bold"))
            messages = [(each["role"], _shown(each["content"])) for each in prompt["messages"]]
            parts += [conversation(messages)] if pictured else map(_message, messages)
    return Group(*parts)


def problems(production: Json) -> list[Json]:
    """The lines that its error lists, but for what the error says itself."""
    error = production["error"] or {}
    listed = error.get("lines") or []
    return [each for each in listed if each["message"] != error.get("message")]


def _shown(content: str) -> str:
    if len(content) <= LONGEST_SHOWN:
        return content
    return f"{content[:LONGEST_SHOWN]}… ({len(content)} characters)"


def _message(message: tuple[str, str]) -> Text:
    return Text(f"  {message[0]}: {message[1]}")
