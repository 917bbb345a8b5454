"""``pressrun campaign …``: a brief in, texts, pictures, voice-overs and a video out."""

from __future__ import annotations

import shutil
import time
import uuid
import zipfile
from pathlib import Path
from typing import Annotated

import typer

from pressrun import verbs
from pressrun.api_client import ApiClient, Json
from pressrun.connection import for_tenant
from pressrun.endings import not_succeeded
from pressrun.exit_codes import CommandError, ExitCode
from pressrun.job_commands import read_body
from pressrun.options import NewestOption
from pressrun.terminal import Terminal, table, when
from pressrun.transfers import download
from pressrun.watching import Display, Snapshot, Watched, display_for, poll

CAMPAIGNS = "/v1/campaigns"
CONTACT_SHEET = "index.html"
ENDED = frozenset({"succeeded", "failed", "expired", "cancelled"})

app = typer.Typer(no_args_is_help=True, help="Submit and follow campaigns.")

CampaignId = Annotated[str, typer.Argument(metavar="ID", help="The campaign's id, campaign_….")]
OutputOption = Annotated[
    Path | None, typer.Option(help="Unpack the bundle into this folder (implies --watch).")
]


@app.command()
@for_tenant
def submit(
    client: ApiClient,
    terminal: Terminal,
    *,
    brief: Annotated[
        str, typer.Argument(help="The brief as JSON: @FILE reads a file, - reads stdin.")
    ],
    watch: Annotated[bool, typer.Option("--watch", help="Wait for the bundle.")] = False,
    output: OutputOption = None,
) -> None:
    """Submit a campaign."""
    campaign = submit_campaign(client, read_body(brief))
    if watch or output is not None:
        _follow(client, campaign["id"], output, terminal)
    else:
        terminal.result(campaign, lambda: campaign["id"])


@app.command()
@for_tenant
def watch(
    client: ApiClient,
    terminal: Terminal,
    campaign_id: CampaignId,
    output: OutputOption = None,
) -> None:
    """Wait for a campaign's end. Ctrl-C stops the watching, not the campaign."""
    _follow(client, campaign_id, output, terminal)


@app.command()
@for_tenant
def steps(client: ApiClient, terminal: Terminal, campaign_id: CampaignId) -> None:
    """List a campaign's steps and how far each is."""
    found = client.list_all(f"{CAMPAIGNS}/{campaign_id}/steps")
    terminal.result(
        found,
        lambda: table(
            "step",
            "state",
            "model",
            "attempts",
            rows=((s["name"], s["state"], s["model"], s["attempts"]) for s in found),
        ),
    )


@app.command()
@for_tenant
def cancel(client: ApiClient, terminal: Terminal, campaign_id: CampaignId) -> None:
    """Stop a campaign; what is finished stays."""
    verbs.ask(client, terminal, f"{CAMPAIGNS}/{campaign_id}/cancel")


@app.command(name="list")
@for_tenant
def list_command(
    client: ApiClient,
    terminal: Terminal,
    limit: NewestOption = 20,
) -> None:
    """List campaigns, newest first."""
    found = client.list_all(CAMPAIGNS, limit=limit)
    terminal.result(
        found,
        lambda: table(
            "id",
            "status",
            "product",
            "created",
            rows=((c["id"], c["status"], c["product"], when(c["created_at"])) for c in found),
        ),
    )


def submit_campaign(client: ApiClient, brief: Json) -> Json:
    """Raises CommandError."""
    return client.post(CAMPAIGNS, brief, idempotency_key=str(uuid.uuid4()))


def watch_campaign(client: ApiClient, campaign_id: str, display: Display) -> Json:
    """Polls until the campaign has ended; returns it when it succeeded. Raises CommandError."""
    watched = Watched("campaign", campaign_id, ENDED, snapshot_of, CAMPAIGNS)
    campaign = poll(client, watched, display)
    if campaign["status"] != "succeeded":
        raise not_succeeded(campaign_id, campaign["status"], campaign.get("error"))
    return campaign


def snapshot_of(campaign: Json) -> Snapshot:
    counts = campaign["steps"]
    return Snapshot(
        str(campaign["status"]), counts["completed"], counts["failed"], counts["total"], "steps"
    )


def unpack_bundle(client: ApiClient, campaign_id: str, folder: Path, terminal: Terminal) -> Path:
    """Downloads the campaign's zip and unpacks it; returns the contact sheet's path.

    What the folder held of an earlier bundle is replaced. Raises CommandError.
    """
    found = client.list_all(f"/v1/jobs/{campaign_id}/artifacts", role="bundle")
    if not found:
        raise CommandError(f"{campaign_id} has no bundle")
    archive = folder.with_name(folder.name + ".zip")
    download(client, f"/v1/artifacts/{found[0]['id']}", archive, terminal)
    try:
        shutil.rmtree(folder, ignore_errors=True)
        with zipfile.ZipFile(archive) as bundle:
            bundle.extractall(folder)
    except (OSError, zipfile.BadZipFile) as error:
        raise CommandError(f"cannot unpack {archive}: {error}", ExitCode.USAGE) from None
    return folder / CONTACT_SHEET


def _follow(client: ApiClient, campaign_id: str, output: Path | None, terminal: Terminal) -> None:
    began = time.monotonic()
    campaign = watch_campaign(client, campaign_id, display_for(terminal))
    if output is not None:
        sheet = unpack_bundle(client, campaign_id, output, terminal)
        if not terminal.json_only:
            terminal.note(f"open {sheet.resolve().as_uri()}")
    seconds = time.monotonic() - began
    terminal.result(campaign, lambda: f"{campaign_id}: {campaign['status']} in {seconds:.0f} s")
