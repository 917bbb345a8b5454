"""``pressrun migrate``, ``settings`` and ``models``: around the servers."""

from __future__ import annotations

import typer

from pressrun.api_client import ApiClient
from pressrun.connection import for_tenant
from pressrun.exit_codes import CommandError, ExitCode
from pressrun.settings_reference import settings_markdown
from pressrun.terminal import Terminal, table
from shared.models_catalog import CatalogError, read_catalog
from shared.settings import SettingsError, load_settings

models_app = typer.Typer(no_args_is_help=True, help="What may be asked for by name.")


def migrate() -> None:
    """Bring the database to this version's tables, and load PRESSRUN_MODELS_FILE into it.

    Safe to run again and by several processes at once.
    """
    # Imported here: alembic would double the start time of every other command.
    from pressrun.migration import migrate_database

    try:
        settings = load_settings()
        entries = read_catalog(settings.models_file) if settings.models_file else None
    except (SettingsError, CatalogError) as error:
        raise CommandError(str(error), ExitCode.USAGE) from None
    migrate_database(settings.database_url, entries)
    terminal = Terminal()
    terminal.note("the database is up to date")
    if entries is not None:
        terminal.note(f"{len(entries)} models in the catalog")


def settings() -> None:
    """Print the reference of all settings, as Markdown."""
    typer.echo(settings_markdown(), nl=False)


@models_app.command(name="list")
@for_tenant
def list_models(client: ApiClient, terminal: Terminal) -> None:
    """List the models that your key may use."""
    models = client.list_all("/v1/models")
    rows = ((model["id"], model.get("owned_by")) for model in models)
    terminal.result(models, lambda: table("id", "owned by", rows=rows))
