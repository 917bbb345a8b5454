"""``pressrun db roles``: users that can do what their kind of process does, and nothing else."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.exc import ProgrammingError

from pressrun.exit_codes import ExitCode
from pressrun.main import main
from shared.db.security import ADMIN_ROLE, API_ROLE, acting_for, administrating
from shared.db.session import make_engine
from tests.deploy_rules import COMPOSE, interpolate, load_yaml

API, HANDS = "web_of_a_login_test", "hands_of_a_login_test"
ROLES = f"{API_ROLE}, {ADMIN_ROLE}, pressrun_worker"
Run = Callable[..., str]


@pytest.fixture(name="owner")
def owner_fixture(database_url: str) -> Iterator[Engine]:
    """Who migrated; the users that a test makes are gone after it."""
    engine = create_engine(database_url, isolation_level="AUTOCOMMIT")
    yield engine
    with engine.connect() as connection:
        for name in (API, HANDS):
            found = connection.execute(
                text("SELECT 1 FROM pg_roles WHERE rolname = :name"), {"name": name}
            )
            if found.scalar() is not None:
                connection.execute(text(f"REASSIGN OWNED BY {name} TO CURRENT_USER"))
                connection.execute(text(f"DROP OWNED BY {name}"))
                connection.execute(text(f"DROP ROLE {name}"))
    engine.dispose()


@pytest.fixture(name="run")
def run_fixture(
    owner: Engine, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Run:
    """Runs ``pressrun db roles`` with these users and passwords; returns what it said."""
    monkeypatch.setenv("PRESSRUN_SIGNING_KEY", "0123456789abcdef")
    monkeypatch.setenv("PRESSRUN_STORAGE_DIR", "/nowhere")
    monkeypatch.setenv("PRESSRUN_DATABASE_URL", url_of(owner))

    def run(
        api: str = API, hands: str = HANDS, *, word: str = "first", code: int = ExitCode.OK
    ) -> str:
        for kind, name in (("API", api), ("WORKER", hands)):
            url = owner.url.set(username=name, password=word)
            monkeypatch.setenv(
                f"PRESSRUN_{kind}_DATABASE_URL", url.render_as_string(hide_password=False)
            )
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            main(["db", "roles"])
        said = capfd.readouterr().err
        assert (ended.value.code or 0) == code, said
        return said

    return run


def url_of(engine: Engine, **changed: Any) -> str:
    return engine.url.set(**changed).render_as_string(hide_password=False)


def sql(engine: Engine, statement: str, **values: Any) -> list[tuple[Any, ...]]:
    with engine.begin() as connection:
        result = connection.execute(text(statement), values)
        return [tuple(row) for row in result] if result.returns_rows else []


def is_password(engine: Engine, name: str, password: str) -> bool:
    """Whether what Postgres has of it is the verifier of this one (RFC 5803)."""
    [[stored]] = sql(engine, "SELECT rolpassword FROM pg_authid WHERE rolname = :n", n=name)
    kind, salted, keys = stored.split("$")
    rounds, salt = salted.split(":")
    assert kind == "SCRAM-SHA-256"
    made = hashlib.pbkdf2_hmac("sha256", password.encode(), base64.b64decode(salt), int(rounds))
    client = hmac.new(made, b"Client Key", "sha256").digest()
    return base64.b64decode(keys.split(":")[0]) == hashlib.sha256(client).digest()


def test_users_are_made_once_and_given_their_passwords(owner: Engine, run: Run) -> None:
    assert run().count("made") == 2
    assert is_password(owner, API, "first")
    said = run(word="second & it's longer")
    assert said.count("brought up to date") == 2
    for name in (API, HANDS):
        assert is_password(owner, name, "second & it's longer")
        assert not is_password(owner, name, "first")
    assert "second" not in said
    belongs = sql(
        owner,
        "SELECT m.rolname, r.rolname FROM pg_auth_members a JOIN pg_roles m ON m.oid = a.member"
        "  JOIN pg_roles r ON r.oid = a.roleid WHERE m.rolname IN (:api, :hands) ORDER BY 1, 2",
        api=API, hands=HANDS,
    )  # fmt: skip
    assert belongs == [(HANDS, "pressrun_worker"), (API, ADMIN_ROLE), (API, API_ROLE)]


def fill(owner: Engine) -> None:
    for statement in (
        "INSERT INTO tenants (id, name) VALUES ('a', 'a'), ('b', 'b')",
        "INSERT INTO files (id, tenant_id, filename, purpose, bytes, sha256, storage_key)"
        " SELECT 'file-' || id, id, 'f', 'batch', 0, '', '' FROM tenants",
        "INSERT INTO api_keys (id, tenant_id, name, prefix, hash)"
        " VALUES ('key_a', 'a', 'n', 'p', '\\x00')",
        "INSERT INTO tenant_limits (tenant_id, queued_rows) VALUES ('a', 1)",
    ):
        sql(owner, statement)


FORBIDDEN = (
    "SET ROLE pressrun_worker",
    "SET ROLE {owner}",
    "SET ROLE NONE; SET ROLE {owner}",
    "SET SESSION AUTHORIZATION {owner}",
    "SELECT hash FROM api_keys",
    "SELECT * FROM sessions",
    "ALTER TABLE files DISABLE ROW LEVEL SECURITY",
    "DROP POLICY tenants ON files",
    "CREATE TABLE mine (id int)",
    "ALTER ROLE {owner} PASSWORD 'mine'",
    "GRANT pressrun_worker TO CURRENT_USER",
    "UPDATE tenant_limits SET queued_rows = 1000000",
    "UPDATE tenants SET weight = 1000",
    "UPDATE jobs SET tenant_id = 'b'",
    "COPY files TO PROGRAM 'cat'",
)


def test_what_the_apis_user_can_not(owner: Engine, run: Run) -> None:
    """As what it is from the start, and as itself: whoever has the password may choose."""
    run()
    fill(owner)
    bare = create_engine(url_of(owner, username=API, password="first"))
    [[name]] = sql(owner, "SELECT current_user")
    done = []
    for first in ("", "RESET ROLE; SET ROLE NONE; "):
        for statement in FORBIDDEN:
            try:
                with acting_for("a"):
                    sql(bare, first + statement.format(owner=f'"{name}"'))
            except ProgrammingError as error:
                if re.search("denied|owner|permission", str(error.orig)):
                    continue
            done.append(first + statement)
    bare.dispose()
    assert done == []


def test_the_apis_user_sees_whom_it_says_it_acts_for(owner: Engine, run: Run) -> None:
    run()
    fill(owner)
    url = url_of(owner, username=API, password="first")
    bare = create_engine(url)
    assert sql(bare, "SELECT current_user") == [(API_ROLE,)]
    assert sql(bare, "SELECT id FROM files") == []
    bare.dispose()
    walled = make_engine(url, process="test", pool_size=1, role=API_ROLE)
    with acting_for("a"):
        assert sql(walled, "SELECT id FROM files") == [("file-a",)]
    with administrating():
        assert sql(walled, "SELECT id FROM api_keys") == [("key_a",)]
        with pytest.raises(ProgrammingError, match="denied"):
            sql(walled, "SELECT id FROM files")
    walled.dispose()


def test_workers_see_everything_and_own_nothing(owner: Engine, run: Run) -> None:
    run()
    fill(owner)
    hands = create_engine(url_of(owner, username=HANDS, password="first"))
    assert len(sql(hands, "SELECT id FROM files")) == 2
    for statement in ("ALTER TABLE files ADD x int", "DROP TABLE files", "SET ROLE pressrun_admin"):
        with pytest.raises(ProgrammingError, match=r"owner|denied"):
            sql(hands, statement)
    hands.dispose()


def test_a_user_that_can_do_more_is_refused(owner: Engine, run: Run) -> None:
    """And so would whoever gets its password be able to."""
    run()
    sql(owner, f"GRANT pressrun_worker TO {API}")
    assert "also belongs to pressrun_worker" in run(code=ExitCode.FAILED, word="second")
    assert is_password(owner, API, "first"), "nothing was changed"
    sql(owner, f"REVOKE pressrun_worker FROM {API}")
    sql(owner, f"ALTER ROLE {HANDS} CREATEDB")
    assert "more in the server" in run(code=ExitCode.FAILED)
    sql(owner, f"ALTER ROLE {HANDS} NOCREATEDB")
    sql(owner, f"CREATE TABLE theirs (id int); ALTER TABLE theirs OWNER TO {HANDS}")
    assert "owns theirs" in run(code=ExitCode.FAILED)
    sql(owner, "DROP TABLE theirs")
    run()


def test_the_owners_own_user_and_one_for_both_are_refused(owner: Engine, run: Run) -> None:
    [[name]] = sql(owner, "SELECT current_user")
    assert "needs a user of its own" in run(api=name, code=ExitCode.FAILED)
    assert "needs a user of its own" in run(hands=API_ROLE, code=ExitCode.FAILED)
    assert "a user each" in run(hands=API, code=ExitCode.USAGE)
    assert sql(owner, "SELECT 1 FROM pg_roles WHERE rolname = :n", n=API) == []


def test_compose_gives_each_kind_a_user_that_is_made() -> None:
    """The file's own URLs, as ``pressrun db roles`` and the servers get them."""
    document = load_yaml(COMPOSE)[0]["services"]
    names = ("POSTGRES_PASSWORD", "POSTGRES_API_PASSWORD", "POSTGRES_WORKER_PASSWORD")
    secrets = {name: f"{name}-value" for name in (*names, "RABBITMQ_PASSWORD", "S3_SECRET_KEY")}

    def given(service: str, name: str) -> str:
        return interpolate(document[service]["environment"][f"PRESSRUN_{name}"], secrets)

    owners = given("migrate", "DATABASE_URL")
    assert given("roles", "DATABASE_URL") == owners
    assert given("api", "DATABASE_URL") == given("roles", "API_DATABASE_URL")
    for service in ("upkeep", "worker", "trainer", "worker-gpu", "trainer-gpu"):
        assert given(service, "DATABASE_URL") == given("roles", "WORKER_DATABASE_URL")
    assert len({owners, given("api", "DATABASE_URL"), given("worker", "DATABASE_URL")}) == 3
