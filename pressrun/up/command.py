"""The command ``pressrun up``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pressrun.connection import LOCAL_DATA
from pressrun.exit_codes import CommandError, ExitCode


def up(
    *,
    data: Annotated[
        Path, typer.Option(help="The folder for everything: database, models, results, keys, logs.")
    ] = LOCAL_DATA,
    port: Annotated[
        int, typer.Option(min=0, max=65_535, help="Port of the API; 0 takes a free one.")
    ] = 8080,
    host: Annotated[
        str, typer.Option(help="Address to listen on; 0.0.0.0 for every one that there is.")
    ] = "127.0.0.1",
    with_fake: Annotated[
        bool, typer.Option("--with-fake", help="Offer the model `fake` too: instant nonsense.")
    ] = False,
    starter_models: Annotated[
        bool, typer.Option(help="Offer the models that come with the installation.")
    ] = True,
    workers: Annotated[
        int, typer.Option(min=1, help="Worker processes; each loads its own models.")
    ] = 1,
) -> None:
    """Run the whole plant on this machine, until Ctrl-C.

    Prints `ready URL` when jobs can be submitted. A tenant's key is then in DATA/api-key, the
    admin key in DATA/admin-key, logs in DATA/logs. PRESSRUN_DATABASE_URL, PRESSRUN_BROKER_URL and
    PRESSRUN_S3_… replace what is embedded; all other settings are passed on to the servers.
    """
    if not starter_models and not with_fake:
        raise CommandError(
            "--no-starter-models leaves no model but that of --with-fake", ExitCode.USAGE
        )
    # Imported here: client commands should start without a database's libraries.
    from pressrun.up.plant import Plant, PlantOptions
    from shared.telemetry import configure_logging

    configure_logging("INFO", "console", process="up")
    options = PlantOptions(
        data=data,
        host=host,
        port=port,
        with_fake=with_fake,
        starter_models=starter_models,
        workers=workers,
    )
    Plant(options).run()
