"""``pressrun campaign …``: a brief in, texts, pictures, voice-overs and a video out."""

from __future__ import annotations

import shutil
import time
import uuid
import zipfile
from pathlib import Path
from typing import Annotated

import typer

from pressrun.api_client import ApiClient, Json
from pressrun.connection import ApiKeyOption, JsonOption, UrlOption, tenant_client
from pressrun.exit_codes import CommandError, ExitCode
from pressrun.job_commands import read_body
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
def submit(
    *,
    brief: Annotated[
        str, typer.Argument(help="The brief as JSON: @FILE reads a file, - reads stdin.")
    ],
    watch: Annotated[bool, typer.Option("--watch", help="Wait for the bundle.")] = False,
    output: OutputOption = None,
    url: UrlOption = None,
    api_key: ApiKeyOption = None,
    json_only: JsonOption = False,
) -> None:
    """Submit a campaign."""
    terminal = Terminal(json_only=json_only)
    with tenant_client(url, api_key) as client:
        campaign = submit_campaign(client, read_body(brief))
        if watch or output is not None:
            _follow(client, campaign["id"], output, terminal)
        else:
            terminal.result(campaign, lambda: campaign["id"])


@app.command()
def watch(
    campaign_id: CampaignId,
    output: OutputOption = None,
    url: UrlOption = None,
    api_key: ApiKeyOption = None,
    json_only: JsonOption = False,
) -> None:
    """Wait for a campaign's end. Ctrl-C stops the watching, not the campaign."""
    with tenant_client(url, api_key) as client:
        _follow(client, campaign_id, output, Terminal(json_only=json_only))


@app.command()
def steps(
    campaign_id: CampaignId,
    url: UrlOption = None,
    api_key: ApiKeyOption = None,
    json_only: JsonOption = False,
) -> None:
    """List a campaign's steps and how far each is."""
    with tenant_client(url, api_key) as client:
        found = client.list_all(f"{CAMPAIGNS}/{campaign_id}/steps")
    Terminal(json_only=json_only).result(
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
def cancel(
    campaign_id: CampaignId,
    url: UrlOption = None,
    api_key: ApiKeyOption = None,
    json_only: JsonOption = False,
) -> None:
    """Stop a campaign; what is finished stays."""
    with tenant_client(url, api_key) as client:
        campaign = client.post(f"{CAMPAIGNS}/{campaign_id}/cancel")
    Terminal(json_only=json_only).result(
        campaign, lambda: f"{campaign['id']}: {campaign['status']}"
    )


@app.command(name="list")
def list_command(
    limit: Annotated[int, typer.Option(min=1, help="How many, newest first.")] = 20,
    url: UrlOption = None,
    api_key: ApiKeyOption = None,
    json_only: JsonOption = False,
) -> None:
    """List campaigns, newest first."""
    with tenant_client(url, api_key) as client:
        found = client.list_all(CAMPAIGNS, limit=limit)
    Terminal(json_only=json_only).result(
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
        error = campaign.get("error") or {}
        reason = f": {error['message']} ({error['code']})" if error else ""
        raise CommandError(f"{campaign_id} ended {campaign['status']}{reason}")
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
