"""Bringing a database to this version's tables, and its catalog to the operator's file."""

from __future__ import annotations

from alembic.util import CommandError as AlembicError
from sqlalchemy.exc import SQLAlchemyError

from pressrun.exit_codes import CommandError, ExitCode
from shared.db.migrate import upgrade
from shared.db.models import sync_catalog
from shared.db.session import is_outage, make_engine
from shared.models_catalog import ModelEntry


def migrate_database(url: str, entries: list[ModelEntry] | None) -> None:
    """Upgrades the tables, and makes the shared models those of ``entries`` unless None.

    Raises CommandError: UNREACHABLE without a database, else FAILED.
    """
    engine = make_engine(url, process="migrate", pool_size=1)
    try:
        upgrade(url)
        if entries is not None:
            with engine.begin() as connection:
                sync_catalog(connection, entries)
    except SQLAlchemyError as error:
        code = ExitCode.UNREACHABLE if is_outage(error) else ExitCode.FAILED
        reason = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
        raise CommandError(f"the database can't be migrated: {reason}", code) from None
    except AlembicError as error:
        raise CommandError(f"the database can't be migrated: {error}") from None
    finally:
        engine.dispose()
