"""``pressrun db``: what is done to the database by whoever owns it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from pressrun.exit_codes import CommandError, ExitCode
from pressrun.terminal import Terminal
from shared.settings import SettingsError, load_settings

if TYPE_CHECKING:
    from shared.db.logins import Login

app = typer.Typer(no_args_is_help=True, help="The database; for whoever migrates it.")


@app.callback()
def group() -> None:
    """So that there are subcommands though there is one."""


@app.command()
def roles() -> None:
    """Make the users that PRESSRUN_API_DATABASE_URL and PRESSRUN_WORKER_DATABASE_URL name.

    Safe to run again: it gives them the passwords that are in the URLs.
    """
    try:
        settings = load_settings()
    except SettingsError as error:
        raise CommandError(str(error), ExitCode.USAGE) from None
    _make(settings.database_url, settings.api_database_url, settings.worker_database_url)


def _make(owner: str, api: str | None, workers: str | None) -> None:
    # Imported here: sqlalchemy would double the start time of every other command.
    from sqlalchemy.exc import SQLAlchemyError

    from shared.db.logins import LoginRefused, ensure_login
    from shared.db.session import is_outage, make_engine

    logins = _logins(api, workers)
    engine = make_engine(owner, process="roles", pool_size=1)
    try:
        with engine.begin() as connection:
            made = [(login.name, ensure_login(connection, login)) for login in logins]
    except LoginRefused as error:
        raise CommandError(str(error)) from None
    except SQLAlchemyError as error:
        code = ExitCode.UNREACHABLE if is_outage(error) else ExitCode.FAILED
        raise CommandError(f"the users can't be made: {_reason(error)}", code) from None
    finally:
        engine.dispose()
    terminal = Terminal()
    for name, is_new in made:
        terminal.note(f"{name}: {'made' if is_new else 'brought up to date'}")


def _logins(api: str | None, workers: str | None) -> list[Login]:
    from shared.db.logins import LoginRefused, login_of_api, login_of_workers

    if api is None or workers is None:
        raise CommandError(
            "set PRESSRUN_API_DATABASE_URL and PRESSRUN_WORKER_DATABASE_URL", ExitCode.USAGE
        )
    try:
        logins = [login_of_api(api), login_of_workers(workers)]
    except LoginRefused as error:
        raise CommandError(str(error), ExitCode.USAGE) from None
    if logins[0].name == logins[1].name:
        raise CommandError("the API and the workers need a user each", ExitCode.USAGE)
    return logins


def _reason(error: Exception) -> str:
    return str(getattr(error, "orig", None) or error).strip().splitlines()[0]
