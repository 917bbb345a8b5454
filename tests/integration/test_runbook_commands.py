"""What deploy/README.md tells operators to run does what it says, on a Postgres of the test's own:
the SQL as it stands there, and the commands without the ``docker compose exec`` before them."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, text

from pressrun.postgres_cluster import wheel_bin_dir
from shared.db.migrate import check, downgrade, upgrade
from tests.deploy_runbook import RUNBOOK
from tests.integration.api_case import ApiCase, api_fixture

__all__ = ["api_fixture"]

TEXT = RUNBOOK.read_text()
SQL = [
    re.sub(r"--.*", "", block).strip() for block in re.findall(r"```sql\n(.*?)```", TEXT, re.DOTALL)
]
IN_POSTGRES = r"^docker compose exec -T postgres (.+)$"


def statements(*, read: bool) -> list[str]:
    found = [part.strip() for block in SQL for part in block.split(";") if part.strip()]
    return [one for one in found if one.startswith("SELECT") == read]


@pytest.fixture(name="owner")
def owner_fixture(api: ApiCase) -> Iterator[Engine]:
    engine = create_engine(api.settings.database_url)
    yield engine
    engine.dispose()


def test_what_to_watch_is_seen_by_a_user_for_that(api: ApiCase, owner: Engine) -> None:
    job_id = api.submit()
    with api.begin() as connection:
        api.open_session(connection)
    cancelled = api.submit()
    assert api.post(f"/v1/jobs/{cancelled}/cancel").status_code == 200
    asked = statements(read=True)
    assert len(asked) == 4
    with owner.connect() as connection:
        connection.execute(text("SET LOCAL ROLE pressrun_worker"))
        found = [list(connection.execute(text(one)).mappings()) for one in asked]
    work, workers, outcomes, outbox = found
    assert [(row["pool"], row["shards"]) for row in work] == [("text", 1)], job_id
    assert work[0]["oldest_seconds"] >= 0
    assert {row["pool"]: row["workers"] for row in workers} == {"text": 1, "upkeep": 1}
    assert [(row["state"], row["count"]) for row in outcomes] == [("cancelled", 1)]
    assert {row["what"] for row in outbox} == {"webhooks", "usage"}


def test_users_can_be_made_by_hand(owner: Engine) -> None:
    """Under other names, in a transaction that ends without them: the server has those already."""
    made = statements(read=False)
    assert len(made) == 9
    with owner.connect() as connection:
        connection.execute(text("CREATE ROLE runbook"))
        for statement in made:
            connection.execute(text(statement.replace("pressrun", "runbook")))
        users = connection.execute(
            text(
                "SELECT rolname, rolinherit FROM pg_roles"
                " WHERE rolname LIKE 'runbook%' AND rolcanlogin ORDER BY 1"
            )
        ).all()
        connection.rollback()
    assert [tuple(user) for user in users] == [
        ("runbook_hands", True),
        ("runbook_watch", True),
        ("runbook_web", False),
    ]


class Backup:
    """The commands of the page, by their program."""

    def __init__(self, url: Any, folder: Path) -> None:
        found = [shlex.split(line) for line in re.findall(IN_POSTGRES, TEXT, re.MULTILINE)]
        self._lines = {words[0]: words for words in found}
        self._folder = folder
        self._programs = wheel_bin_dir()
        self._database = str(url.database)
        self._environment = os.environ | {
            "PGHOST": str(url.query.get("host", url.host)),
            "PGPORT": str(url.query.get("port", url.port)),
            "LD_LIBRARY_PATH": str(self._programs.parent / "lib"),
        }
        self._user = str(url.username)

    def run(self, program: str) -> None:
        words = self._lines[program]
        files: dict[str, Any] = {}
        for sign, stream, mode in ((">", "stdout", "wb"), ("<", "stdin", "rb")):
            if sign in words:
                at = words.index(sign)
                files[stream] = (self._folder / words[at + 1]).open(mode)
                words = words[:at]
        here = [self._database if word == "pressrun" else word for word in words[1:]]
        here[here.index("-U") + 1] = self._user
        try:
            done = subprocess.run(
                [str(self._programs / program), *here],
                env=self._environment,
                stderr=subprocess.PIPE,
                check=False,
                **files,
            )
        finally:
            for file in files.values():
                file.close()
        assert done.returncode == 0, done.stderr.decode(errors="replace")


def rights(engine: Engine) -> list[tuple[Any, ...]]:
    """Everybody's, by table and column; and the policies."""
    with engine.connect() as connection:
        columns = connection.execute(
            text(
                "SELECT grantee, table_name, column_name, privilege_type"
                "  FROM information_schema.column_privileges WHERE table_schema = 'public'"
                " ORDER BY 1, 2, 3, 4"
            )
        ).all()
        policies = connection.execute(
            text("SELECT tablename, policyname, qual FROM pg_policies ORDER BY 1, 2")
        ).all()
    return [tuple(row) for row in (*columns, *policies)]


def test_a_backup_is_restored_whatever_was_made_since(
    api: ApiCase, owner: Engine, tmp_path: Path
) -> None:
    backup = Backup(owner.url, tmp_path)
    job_id = api.submit()
    before = rights(owner)
    backup.run("pg_dump")
    later = api.submit()
    with owner.begin() as connection:  # as a newer release's migration would
        connection.execute(text("CREATE TABLE newer (tenant text REFERENCES tenants (id))"))
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    backup.run("dropdb")
    backup.run("createdb")
    backup.run("pg_restore")
    for engine in (owner, api.engine, api.services.engine, api.services.autocommit):
        engine.dispose()
    url = owner.url.render_as_string(hide_password=False)
    upgrade(url)
    check(url)
    assert rights(owner) == before
    assert api.get(f"/v1/jobs/{job_id}").json["state"] == "queued"
    assert api.get(f"/v1/jobs/{later}").status_code == 404
    api.submit()


def test_a_backup_of_the_release_before_is_brought_up_to_date(
    empty_database_url: str, tmp_path: Path
) -> None:
    upgrade(empty_database_url)
    downgrade(empty_database_url, "-1")
    engine = create_engine(empty_database_url)
    backup = Backup(engine.url, tmp_path)
    backup.run("pg_dump")
    upgrade(empty_database_url)
    engine.dispose()
    for program in ("dropdb", "createdb", "pg_restore"):
        backup.run(program)
    upgrade(empty_database_url)
    check(empty_database_url)
