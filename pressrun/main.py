"""The program ``pressrun``: every command, and how a failure leaves the process."""

from __future__ import annotations

import sys

import typer

from pressrun.admin_commands import keys_app, tenants_app
from pressrun.archive_commands import admin_app
from pressrun.augment_commands import augment
from pressrun.batch_commands import app as batch_app
from pressrun.batch_result_commands import results, retry
from pressrun.campaign_commands import app as campaign_app
from pressrun.database_commands import app as db_app
from pressrun.demo.command import demo
from pressrun.exit_codes import EXIT_CODES_HELP, CommandError, ExitCode
from pressrun.import_commands import import_model
from pressrun.job_commands import app as job_app
from pressrun.limit_commands import limits
from pressrun.model_commands import models_app
from pressrun.model_job_commands import evaluate, optimize
from pressrun.monitor_commands import app as monitors_app
from pressrun.production_commands import app as productions_app
from pressrun.production_commands import produce
from pressrun.schedule_commands import app as schedules_app
from pressrun.server_commands import migrate, settings
from pressrun.tenant_commands import change, disable, enable, show
from pressrun.terminal import visible
from pressrun.tuning_commands import app as tune_app
from pressrun.up.command import up
from pressrun.usage_commands import usage
from pressrun.webhook_commands import app as webhooks_app

app = typer.Typer(
    name="pressrun",
    help="A self-hosted plant for generated content.",
    epilog=EXIT_CODES_HELP,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.command()(up)
app.command()(demo)
app.command()(migrate)
app.add_typer(db_app, name="db")
app.command()(settings)
app.command()(produce)
app.command()(augment)
batch_app.command()(results)
batch_app.command()(retry)
app.add_typer(batch_app, name="batch")
app.add_typer(job_app, name="job")
app.add_typer(campaign_app, name="campaign")
app.add_typer(productions_app, name="productions")
app.add_typer(schedules_app, name="schedules")
app.add_typer(monitors_app, name="monitors")
app.add_typer(tune_app, name="tune")
app.add_typer(webhooks_app, name="webhooks")
models_app.command(name="import")(import_model)
models_app.command()(evaluate)
models_app.command()(optimize)
app.add_typer(models_app, name="models")
app.add_typer(keys_app, name="keys")
tenants_app.command()(show)
tenants_app.command(name="set")(change)
tenants_app.command()(disable)
tenants_app.command()(enable)
app.add_typer(tenants_app, name="tenants")
admin_app.add_typer(keys_app, name="keys")
admin_app.add_typer(tenants_app, name="tenants")
app.command()(usage)
app.command()(limits)
app.add_typer(admin_app, name="admin")


def main(arguments: list[str] | None = None) -> None:
    """Runs one command and exits with a code of ``ExitCode``."""
    try:
        app(arguments)
    except CommandError as error:
        sys.stderr.write(f"pressrun: {visible(error.message)}\n")
        sys.exit(error.exit_code)
    except BrokenPipeError:
        sys.stderr.close()  # `pressrun … | head`: nobody is left to tell
        sys.exit(ExitCode.OK)
