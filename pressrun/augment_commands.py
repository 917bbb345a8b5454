"""``pressrun augment``: more training data from a few examples."""

from __future__ import annotations

import tempfile
import uuid
from pathlib import Path
from typing import Annotated

import typer

from pressrun.api_client import ApiClient, Json
from pressrun.augment_files import Parts, Shares, form_of, template_of
from pressrun.augment_views import told
from pressrun.connection import for_tenant
from pressrun.endings import not_succeeded
from pressrun.exit_codes import CommandError, ExitCode
from pressrun.options import MetadataOption, parse_metadata
from pressrun.production_commands import PRODUCTIONS, ended_production
from pressrun.production_views import counts, previewed
from pressrun.terminal import Terminal
from pressrun.transfers import download, uploaded_id


@for_tenant
def augment(
    client: ApiClient,
    terminal: Terminal,
    examples: Annotated[
        Path,
        typer.Argument(
            exists=True, dir_okay=False, readable=True, help="Examples, as for a fine-tuning."
        ),
    ],
    *,
    model: Annotated[str, typer.Option(help="Writes the rows.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The training file: .jsonl.")],
    rows: Annotated[
        int | None, typer.Option(min=1, help="How many, the same number of each label.")
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option(help="Only these: sport,food; or each its number: sport=50,food=9."),
    ] = None,
    shown: Annotated[
        int | None, typer.Option("--examples", min=1, max=32, help="Shown for each row; 4.")
    ] = None,
    held_out: Annotated[
        float, typer.Option(min=0, max=0.5, help="The share of each label for a second file.")
    ] = 0.0,
    hints: Annotated[
        bool, typer.Option(help="Say about what and as whom; small models do better without.")
    ] = True,
    with_examples: Annotated[
        bool, typer.Option("--with-examples", help="Put the examples into the file, too.")
    ] = False,
    sidecar: Annotated[
        bool, typer.Option("--sidecar", help="What rows are made of, in a file beside.")
    ] = False,
    language: Annotated[str | None, typer.Option(help="A code such as de, or a name.")] = None,
    tone: Annotated[str | None, typer.Option(help="Of the texts.")] = None,
    similar: Annotated[
        float | None, typer.Option(min=0.5, max=1, help="From which on a text is a copy; 0.6.")
    ] = None,
    retries: Annotated[
        int | None, typer.Option(min=0, max=5, help="How often a refused row is written again.")
    ] = None,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="Of a row.")] = None,
    temperature: Annotated[float | None, typer.Option(min=0, max=2, help="0.8.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="The same seed, the same draws.")] = None,
    preview: Annotated[
        bool, typer.Option("--preview", help="Show the first prompts, run nothing.")
    ] = False,
    metadata: MetadataOption = None,
) -> None:
    """Write synthetic training rows after a few examples, and check them."""
    shares = Shares(held_out, with_examples=with_examples, sidecar=sidecar)
    parts = Parts(output, shares)
    parts.spare(examples)
    form = form_of(examples)
    template = template_of(
        {
            "form": form,
            "rows": rows,
            "examples": shown,
            "language": language,
            "tone": tone,
            "hints": None if hints else False,
        },
        labels,
        similar=similar,
        retries=retries,
        sampling={"max_tokens": max_tokens, "temperature": temperature, "seed": seed},
    )
    body: Json = {"template": template, "model": model, "output_format": "jsonl"}
    body["data_file_id"] = uploaded_id(client, str(examples), "user_data", terminal)
    if preview:
        seen = client.post(f"{PRODUCTIONS}/preview", body)
        terminal.result(seen, lambda: previewed(seen, pictured=terminal.shows_pictures))
        return
    body["metadata"] = parse_metadata(metadata)
    made = client.post(PRODUCTIONS, body, idempotency_key=str(uuid.uuid4()))
    if not terminal.json_only:
        terminal.note(f"submitted {made['id']}")
    found = ended_production(client, made["id"], terminal)
    if found["output_file_id"] is not None:
        _write(client, found, parts, examples, terminal)
    terminal.result(found, lambda: counts(found, pictured=terminal.shows_pictures))
    terminal.notes(told(found))
    _check(found)


def _write(
    client: ApiClient, production: Json, parts: Parts, examples: Path, terminal: Terminal
) -> None:
    """Raises CommandError."""
    with tempfile.TemporaryDirectory(prefix="augment-") as folder:
        fetched = Path(folder) / "rows.jsonl"
        download(client, f"/v1/files/{production['output_file_id']}", fetched, terminal)
        try:
            written = parts.write(fetched, examples)
        except OSError as error:
            message = f"cannot write {error.filename}: {error.strerror}"
            raise CommandError(message, ExitCode.USAGE) from None
    for path, count in written.items():
        if not terminal.json_only:
            terminal.note(f"wrote {count} rows to {path}")


def _check(production: Json) -> None:
    """Raises CommandError (FAILED) for an end without rows."""
    error, summary = production["error"], production["summary"]
    if production["status"] != "succeeded":
        raise not_succeeded(production["id"], production["status"], error)
    if summary is not None and not summary["succeeded"]:
        raise CommandError(f"no row of {production['id']} was kept")
