from __future__ import annotations

from pathlib import Path

from sqlalchemy import create_engine, select

from shared.db.migrate import check
from shared.db.tables import models
from tests.integration.cli_plant import run_cli

SETTINGS = {"signing_key": "sixteen characters or more", "storage_dir": "unused"}
CATALOG = '[[models]]\nid = "fake"\nengine = "fake"\n'


def test_migrate_makes_tables_and_loads_the_catalog_and_may_run_again(
    tmp_path: Path, empty_database_url: str
) -> None:
    catalog = tmp_path / "models.toml"
    catalog.write_text(CATALOG)
    settings = {**SETTINGS, "database_url": empty_database_url, "models_file": str(catalog)}
    for _ in range(2):
        done = run_cli("migrate", cwd=tmp_path, **settings)
        assert (done.returncode, done.stdout) == (0, ""), done.stderr
        assert "1 models in the catalog" in done.stderr
    check(empty_database_url)
    engine = create_engine(empty_database_url)
    with engine.connect() as connection:
        assert connection.execute(select(models.c.id)).scalars().all() == ["fake"]
    engine.dispose()


def test_a_database_that_is_away_is_told_from_a_wrong_setting(tmp_path: Path) -> None:
    nowhere = "postgresql+psycopg://nobody@127.0.0.1:1/nothing"
    away = run_cli("migrate", cwd=tmp_path, **SETTINGS, database_url=nowhere)
    assert away.returncode == 3
    assert away.stderr.startswith("pressrun: the database can't be migrated: connection failed")
    assert len(away.stderr.splitlines()) == 1

    unset = run_cli("migrate", cwd=tmp_path, **SETTINGS)
    assert unset.returncode == 2
    assert "PRESSRUN_DATABASE_URL" in unset.stderr

    catalog = tmp_path / "models.toml"
    catalog.write_text("[[models]]\nid = 5\n")
    settings = {**SETTINGS, "database_url": nowhere, "models_file": str(catalog)}
    wrong = run_cli("migrate", cwd=tmp_path, **settings)
    assert wrong.returncode == 2
    assert "models.0.id" in wrong.stderr
