"""Migrations: from nothing to the newest and back, agreeing with the tables, polite about locks."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine, create_engine, inspect, text
from sqlalchemy.exc import OperationalError

from shared.db.migrate import alembic_config, check, downgrade, upgrade
from shared.db.tables import metadata

OWN = {table.name for table in metadata.sorted_tables}


@pytest.fixture
def database(empty_database_url: str) -> Iterator[Engine]:
    engine = create_engine(empty_database_url)
    yield engine
    engine.dispose()


def tables(engine: Engine) -> set[str]:
    return set(inspect(engine).get_table_names())


def test_upgrading_an_empty_database_makes_what_the_code_declares(
    empty_database_url: str, database: Engine
) -> None:
    upgrade(empty_database_url)
    assert tables(database) == OWN | {"alembic_version"}
    assert "ready_seq" in inspect(database).get_sequence_names()
    check(empty_database_url)
    upgrade(empty_database_url)  # again: nothing to do
    check(empty_database_url)


def test_indexes_are_those_the_code_declares_with_their_conditions(
    empty_database_url: str, database: Engine
) -> None:
    """``check`` does not compare the conditions of partial indexes; a wrong one is never used."""
    upgrade(empty_database_url)
    migrated = index_definitions(database)
    downgrade(empty_database_url, "base")
    metadata.create_all(database)
    assert migrated == index_definitions(database)


def test_downgrading_removes_everything_and_upgrading_works_again(
    empty_database_url: str, database: Engine
) -> None:
    upgrade(empty_database_url)
    downgrade(empty_database_url, "base")
    assert tables(database) == {"alembic_version"}
    assert inspect(database).get_sequence_names() == []
    upgrade(empty_database_url)
    check(empty_database_url)


def test_a_migration_gives_up_on_a_lock_and_changes_nothing(
    empty_database_url: str, database: Engine
) -> None:
    upgrade(empty_database_url, "0003")
    before = tables(database), index_definitions(database)
    with database.begin() as busy:
        busy.execute(text("LOCK TABLE jobs IN ACCESS SHARE MODE"))  # any running SELECT has this
        with pytest.raises(OperationalError, match="lock timeout"):
            upgrade(empty_database_url)  # 0004 adds columns to jobs
    assert (tables(database), index_definitions(database)) == before
    upgrade(empty_database_url)
    check(empty_database_url)


def test_two_migrations_at_once_take_turns(empty_database_url: str, database: Engine) -> None:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1) as threads, database.connect() as other:
        other.execute(text("SELECT pg_advisory_lock(7703001)"))
        waiting = threads.submit(upgrade, empty_database_url)
        wait_for_advisory_waiter(database)
        assert tables(database) == set()
        other.execute(text("SELECT pg_advisory_unlock(7703001)"))
        waiting.result(timeout=60)
    check(empty_database_url)


def test_revisions_form_one_line() -> None:
    from alembic.script import ScriptDirectory

    scripts = ScriptDirectory.from_config(alembic_config("postgresql+psycopg://"))
    assert len(scripts.get_heads()) == 1
    assert len(scripts.get_bases()) == 1


def index_definitions(engine: Engine) -> set[str]:
    with engine.connect() as connection:
        rows = connection.execute(
            text(
                "SELECT indexdef FROM pg_indexes WHERE schemaname = 'public'"
                " AND tablename <> 'alembic_version'"
            )
        )
        return set(rows.scalars())


def wait_for_advisory_waiter(engine: Engine) -> None:
    """Returns once somebody stands in line for it; the test's timeout is the limit."""
    waiting = text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        while not connection.execute(waiting).scalar():
            connection.execute(text("SELECT pg_sleep(0.02)"))
