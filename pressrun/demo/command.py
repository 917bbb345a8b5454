"""The command ``pressrun demo``."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from textwrap import shorten
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from pressrun.api_client import ApiClient, Json
from pressrun.batch_commands import download_results, submit_batch
from pressrun.campaign_commands import submit_campaign, unpack_bundle, watch_campaign
from pressrun.connection import LOCAL_DATA, ApiKeyOption
from pressrun.demo.local_server import local_server
from pressrun.demo.results import DemoResults, collect, summary_markdown
from pressrun.demo.rows import LEAST_ROWS, Models, campaign_brief, demo_rows, input_lines
from pressrun.exit_codes import CommandError, ExitCode
from pressrun.terminal import Terminal
from pressrun.transfers import download
from pressrun.watching import display_for, watch_batch

DATA = LOCAL_DATA / "demo"
SHOWN_ROWS = 6
SHOWN_CHARACTERS = 140
FAKE = "fake"
STARTERS = Models("smollm2-135m-instruct", "fluent-emoji", "hibari")
ANY_ENDPOINT = "/v1/*"


def demo(
    *,
    output: Annotated[Path, typer.Option(help="The folder for input and results.")] = Path(
        "demo-output"
    ),
    rows: Annotated[
        int, typer.Option(min=LEAST_ROWS, max=10_000, help="How many texts.")
    ] = LEAST_ROWS,
    model: Annotated[
        str, typer.Option(help="The model that writes; `fake` stands in for all of them.")
    ] = STARTERS.text,
    campaign: Annotated[bool, typer.Option(help="After the batch, make a whole campaign.")] = True,
    url: Annotated[
        str | None,
        typer.Option(
            "--url", envvar="PRESSRUN_URL", help="A running server; default: start one for now."
        ),
    ] = None,
    api_key: ApiKeyOption = None,
) -> None:
    """Run a batch of advertisements, news, pictures and voice-overs, then a whole campaign.

    Without a server (--url and --api-key), one is started with its data in .pressrun/demo and
    stopped at the end.
    """
    if (url is None) != (api_key is None):
        raise CommandError("a running server takes both --url and --api-key", ExitCode.USAGE)
    terminal = Terminal()
    models = Models(FAKE, FAKE, FAKE) if model == FAKE else replace(STARTERS, text=model)
    with ExitStack() as stack:
        if url is None or api_key is None:
            terminal.note("starting a server (the first time takes a minute or two)")
            extra = ["--with-fake", "--no-starter-models"] if model == FAKE else []
            url, api_key = stack.enter_context(local_server(_data_for(model), terminal, extra))
            stack.push(_explain_interruption)
        client = stack.enter_context(ApiClient(url, api_key))
        results = _run(client, output, rows, models, terminal)
        _show(results, output, terminal)
        _check(results)
        if campaign:
            _run_campaign(client, output, models, terminal)


def _explain_interruption(kind: object, error: BaseException | None, trace: object) -> None:
    """The server goes down with the demo, so "it goes on" would be wrong."""
    if isinstance(error, CommandError) and error.exit_code is ExitCode.INTERRUPTED:
        raise CommandError("interrupted; the server was stopped", ExitCode.INTERRUPTED) from None


def _data_for(model: str) -> Path:
    # Apart, so that a trial with the fake model leaves the real catalog alone.
    return DATA.with_name("demo-fake") if model == FAKE else DATA


def _run(
    client: ApiClient, output: Path, count: int, models: Models, terminal: Terminal
) -> DemoResults:
    rows = demo_rows(count)
    source = output / "input.jsonl"
    try:
        output.mkdir(parents=True, exist_ok=True)
        source.write_text(input_lines(rows, models))
        for name in ("output.jsonl", "errors.jsonl"):
            (output / name).write_text("")
    except OSError as error:
        raise CommandError(f"cannot write to {output}: {error.strerror}", ExitCode.USAGE) from None
    body: Json = {
        "endpoint": ANY_ENDPOINT,
        "completion_window": "24h",
        "metadata": {"made": "demo"},
    }
    began = time.monotonic()
    batch = submit_batch(client, source, body, terminal)
    terminal.note(f"submitted {len(rows)} rows as {batch['id']}")
    batch = watch_batch(client, batch["id"], display_for(terminal))
    seconds = time.monotonic() - began
    if batch["status"] != "completed":
        listed = (batch.get("errors") or {}).get("data") or [{"message": "no reason given"}]
        raise CommandError(f"the batch ended {batch['status']}: {listed[0]['message']}")
    download_results(client, batch, output, terminal)
    with (output / "output.jsonl").open() as done, (output / "errors.jsonl").open() as failed:
        results = collect(rows, done, failed, seconds)
    for file in results.files:
        download(client, f"/v1/artifacts/{file.artifact_id}", output / file.path, terminal)
    summary = summary_markdown(results, models=models, batch_id=batch["id"])
    (output / "summary.md").write_text(summary)
    return results


def _show(results: DemoResults, output: Path, terminal: Terminal) -> None:
    shown = Table(title="Some of the results", title_justify="left", show_lines=True)
    shown.add_column("row", overflow="fold")
    shown.add_column("asked for", ratio=2)
    shown.add_column("answer", ratio=3)
    answered = [row for row in results.rows if row.custom_id in results.texts]
    for row in answered[:SHOWN_ROWS]:
        asked = shorten(row.prompt, SHOWN_CHARACTERS, placeholder="…")
        shown.add_row(*map(escape, (row.custom_id, asked, results.texts[row.custom_id])))
    terminal.out.print(shown)
    terminal.out.print(
        f"{results.completed} of {len(results.rows)} rows in {results.seconds:.1f} s "
        f"({results.rows_per_second:.2f} rows/s), {results.input_tokens} tokens in, "
        f"{results.output_tokens} out\n"
        f"all of them: {output / 'summary.md'}, pictures/, voice-overs/, output.jsonl, "
        "errors.jsonl, input.jsonl",
        markup=False,
        soft_wrap=True,
    )


def _run_campaign(client: ApiClient, output: Path, models: Models, terminal: Terminal) -> None:
    began = time.monotonic()
    campaign = submit_campaign(client, campaign_brief(models))
    terminal.note(f"submitted a campaign as {campaign['id']}")
    campaign = watch_campaign(client, campaign["id"], display_for(terminal))
    sheet = unpack_bundle(client, campaign["id"], output / "campaign", terminal)
    terminal.out.print(
        f"a campaign of {campaign['steps']['total']} steps in {time.monotonic() - began:.1f} s; "
        f"its contact sheet:\n{sheet.resolve().as_uri()}",
        markup=False,
        soft_wrap=True,
    )


def _check(results: DemoResults) -> None:
    """Raises CommandError when any row has no answer."""
    if results.missing:
        raise CommandError(f"{len(results.missing)} rows are missing: {results.missing[0]}, …")
    if results.errors:
        row, reason = next(iter(results.errors.items()))
        raise CommandError(f"{len(results.errors)} rows failed; {row}: {reason}")
