"""What each role may see and do in the database, and who may log in as which."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import Connection, Engine, create_engine, text
from sqlalchemy.exc import IntegrityError, ProgrammingError

from shared.db.migrate import upgrade
from shared.db.security import API_ROLE, acting_for, administrating
from shared.db.session import make_engine
from shared.weights import LEAST_WEIGHT, MOST_WEIGHT

if TYPE_CHECKING:
    from pressrun.embedded_postgres_server import EmbeddedPostgres


@pytest.fixture(name="shared_url", scope="module")
def shared_database_fixture(
    postgres_server: EmbeddedPostgres, database_template: str
) -> Iterator[str]:
    """A database for all tests below, which leave it as they find it."""
    with postgres_server.connect() as connection:
        connection.execute(f"CREATE DATABASE behind_the_wall TEMPLATE {database_template}")
    yield postgres_server.url_of("behind_the_wall")
    with postgres_server.connect() as connection:
        connection.execute("DROP DATABASE behind_the_wall WITH (FORCE)")


@pytest.fixture(name="owner", scope="module")
def owner_fixture(shared_url: str) -> Iterator[Engine]:
    engine = create_engine(shared_url)
    with engine.begin() as connection:
        fill(connection)
    yield engine
    engine.dispose()


def fill(connection: Connection) -> None:
    """Two tenants, a, with a file and a model, and b; and a model of everybody's."""
    for statement in (
        "INSERT INTO tenants (id, name) VALUES ('a', 'a'), ('b', 'b')",
        "INSERT INTO files (id, tenant_id, filename, purpose, bytes, sha256, storage_key)"
        " SELECT 'file-' || id, id, 'f', 'batch', 0, '', '' FROM tenants",
        "INSERT INTO models (id, tenant_id, pool, engine, source, endpoints)"
        " VALUES ('own', 'a', 'text', 'fake', '', '{}'), ('all', NULL, 'text', 'fake', '', '{}')",
        "INSERT INTO uploads (id, tenant_id, filename, purpose, bytes, expires_at)"
        " SELECT 'upload-' || id, id, 'f', 'batch', 1, now() FROM tenants",
        "INSERT INTO upload_parts (id, upload_id, bytes, sha256, storage_key)"
        " SELECT 'part-' || id, 'upload-' || id, 1, '', '' FROM tenants",
        "INSERT INTO model_aliases (id, tenant_id, name, model) VALUES ('x', 'a', 'x@y', 'own')",
    ):
        connection.execute(text(statement))


@pytest.fixture(name="walled", params=["autocommit", "transactions"], scope="module")
def walled_fixture(
    owner: Engine, shared_url: str, request: pytest.FixtureRequest
) -> Iterator[Engine]:
    """One connection, as the API's are."""
    engine = make_engine(
        shared_url,
        process="test",
        pool_size=1,
        always_autocommit=request.param == "autocommit",
        role=API_ROLE,
    )
    yield engine
    engine.dispose()


def ids(engine: Engine, table: str) -> list[str]:
    with engine.begin() as connection:
        found = connection.execute(text(f"SELECT id FROM {table} ORDER BY id"))
        return list(found.scalars())


def run(engine: Engine, statement: str, **values: Any) -> int:
    with engine.begin() as connection:
        return connection.execute(text(statement), values).rowcount


@pytest.mark.parametrize("table", ["files", "upload_parts", "tenants", "models"])
def test_nobody_sees_nothing(walled: Engine, table: str) -> None:
    assert ids(walled, table) == []
    with acting_for():
        assert ids(walled, table) == []
    with acting_for("c"):
        assert set(ids(walled, table)) <= {"all"}


def test_each_sees_its_own_and_the_setting_ends_with_the_transaction(walled: Engine) -> None:
    for _ in range(8):  # with and without a prepared statement
        with acting_for("a"):
            assert ids(walled, "files") == ["file-a"]
            assert ids(walled, "upload_parts") == ["part-a"]
            assert ids(walled, "models") == ["all", "own"]
            with acting_for("b"):
                assert ids(walled, "files") == ["file-b"]
                assert ids(walled, "models") == ["all"]
            assert ids(walled, "files") == ["file-a"]
        with acting_for("a", "b"):
            assert ids(walled, "files") == ["file-a", "file-b"]
        assert ids(walled, "files") == []


def test_the_first_statement_of_a_transaction_is_enough(walled: Engine) -> None:
    with acting_for("a"), walled.begin() as connection:
        for _ in range(3):
            assert connection.execute(text("SELECT id FROM files")).scalars().all() == ["file-a"]


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE files SET expires_at = now() WHERE id = 'file-a'",
        "UPDATE models SET deleted_at = NULL WHERE id = 'own'",
        "UPDATE model_aliases SET model = model",
    ],
)
def test_rows_of_others_are_not_there_to_be_changed(walled: Engine, statement: str) -> None:
    with acting_for("b"):
        assert run(walled, statement) == 0
    with acting_for("a"):
        assert run(walled, statement) == 1


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO files (id, tenant_id, filename, purpose, bytes, sha256, storage_key)"
        " VALUES ('x', 'b', 'f', 'batch', 0, '', '')",
        "INSERT INTO upload_parts (id, upload_id, bytes, sha256, storage_key)"
        " VALUES ('x', 'upload-b', 1, '', '')",
        "UPDATE models SET deleted_at = now() WHERE id = 'all'",
    ],
)
def test_nothing_is_written_for_others(owner: Engine, walled: Engine, statement: str) -> None:
    before = ids(owner, "files"), ids(owner, "upload_parts")
    with acting_for("a"), pytest.raises(ProgrammingError, match="row-level security policy"):
        run(walled, statement)
    assert (ids(owner, "files"), ids(owner, "upload_parts")) == before


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT hash FROM api_keys",
        "SELECT id FROM sessions",
        "UPDATE models SET tenant_id = 'a'",
        "UPDATE files SET tenant_id = 'b'",
        "UPDATE files SET filename = 'x'",
        "UPDATE tenants SET name = 'x'",
        "UPDATE tenant_limits SET queued_rows = 9",
        "UPDATE webhook_deliveries SET event_type = 'x'",
        "DELETE FROM reservations",
        "DELETE FROM jobs",
        "CREATE TABLE mine ()",
        "ALTER TABLE files DISABLE ROW LEVEL SECURITY",
        "DROP POLICY tenants ON files",
    ],
)
def test_requests_may_not(walled: Engine, statement: str) -> None:
    with (
        acting_for("a"),
        pytest.raises(ProgrammingError, match=r"permission denied|must be owner"),
    ):
        run(walled, statement)


def test_everybodys_models_can_be_held(walled: Engine) -> None:
    held = "SELECT id FROM models WHERE id = 'all' FOR KEY SHARE"
    with acting_for("b"), walled.begin() as connection:
        assert connection.execute(text(held)).scalars().all() == ["all"]


def test_administration_sees_tenants_and_no_work(walled: Engine) -> None:
    with administrating():
        assert ids(walled, "tenants") == ["a", "b"]
        for table in ("jobs", "files", "artifacts", "models"):
            with pytest.raises(ProgrammingError, match="permission denied"):
                ids(walled, table)
        assert run(walled, "UPDATE tenants SET name = id") == 2
    assert ids(walled, "tenants") == []
    with acting_for("a"):
        assert ids(walled, "tenants") == ["a"]


def test_errors_are_what_they_are_without_it(walled: Engine) -> None:
    """The statement fails in a pipeline, of which the connection is out again."""
    with acting_for("a"):
        again = (
            "INSERT INTO files (id, tenant_id, filename, purpose, bytes, sha256, storage_key)"
            " VALUES ('file-a', 'a', 'f', 'batch', 0, '', '')"
        )
        with pytest.raises(IntegrityError, match="pk_files"):
            run(walled, again)
        with pytest.raises(ProgrammingError, match="does not exist"):
            run(walled, "SELECT nothing FROM files")
        assert ids(walled, "files") == ["file-a"]


def test_many_rows_are_written_under_one_setting(walled: Engine, owner: Engine) -> None:
    statement = text(
        "INSERT INTO upload_parts (id, upload_id, bytes, sha256, storage_key)"
        " VALUES (:id, 'upload-a', 1, '', '')"
    )
    with acting_for("a"), walled.begin() as connection:
        connection.execute(statement, [{"id": f"part-{number}"} for number in range(3)])
    added = ["part-0", "part-1", "part-2"]
    assert ids(owner, "upload_parts") == [*added, "part-a", "part-b"]
    assert run(owner, "DELETE FROM upload_parts WHERE id = ANY(:added)", added=added) == 3


def test_weights_have_the_apis_bounds_in_the_database_too(owner: Engine) -> None:
    for weight in (LEAST_WEIGHT, MOST_WEIGHT, 1.0):
        assert run(owner, "UPDATE tenants SET weight = :weight", weight=weight) == 2
    for weight in (LEAST_WEIGHT * 0.99, MOST_WEIGHT * 1.01):
        with pytest.raises(IntegrityError, match="ck_tenants_weight"):
            run(owner, "UPDATE tenants SET weight = :weight", weight=weight)


# --- who owns it, and who logs in -----------------------------------------------------------------


@pytest.fixture(name="role")
def role_fixture(shared_url: str) -> Iterator[Callable[[str, str], str]]:
    """Makes a role of that name that logs in, and is gone after the test; gives its URL."""
    engine = create_engine(shared_url, isolation_level="AUTOCOMMIT")
    made = []

    def make(name: str, how: str) -> str:
        with engine.connect() as connection:
            connection.execute(text(f"DROP ROLE IF EXISTS {name}"))
            connection.execute(text(f"CREATE ROLE {name} LOGIN {how}"))
        made.append(name)
        return engine.url.set(username=name).render_as_string(hide_password=False)

    yield make
    with engine.connect() as connection:
        for name in made:
            connection.execute(text(f"REASSIGN OWNED BY {name} TO CURRENT_USER"))
            connection.execute(text(f"DROP OWNED BY {name}"))
            connection.execute(text(f"DROP ROLE {name}"))
    engine.dispose()


def test_a_login_role_of_its_own_needs_nothing_of_the_connection(
    owner: Engine, role: Callable[[str, str], str]
) -> None:
    """As deploy/README.md has it, for poolers that drop what a client says when it connects."""
    url = role("web_of_a_test", f"NOINHERIT IN ROLE {API_ROLE}, pressrun_admin")
    with owner.begin() as connection:
        connection.execute(text(f"ALTER ROLE web_of_a_test SET role = '{API_ROLE}'"))
    bare = create_engine(url)
    assert ids(bare, "files") == []
    with pytest.raises(ProgrammingError, match="permission denied"):
        run(bare, "SET ROLE pressrun_worker")
    bare.dispose()
    walled = make_engine(url, process="test", pool_size=1, role=API_ROLE)
    with acting_for("a"):
        assert ids(walled, "files") == ["file-a"]
    with administrating():
        assert ids(walled, "tenants") == ["a", "b"]
    walled.dispose()


def test_workers_may_log_in_as_no_owner(owner: Engine, role: Callable[[str, str], str]) -> None:
    engine = create_engine(role("hands_of_a_test", "IN ROLE pressrun_worker"))
    assert ids(engine, "files") == ["file-a", "file-b"]
    assert run(engine, "UPDATE files SET filename = 'x'") == 2
    with pytest.raises(ProgrammingError, match="must be owner"):
        run(engine, "ALTER TABLE files DISABLE ROW LEVEL SECURITY")
    engine.dispose()


def test_an_owner_who_is_no_superuser_sees_all_and_the_wall_holds(
    empty_database_url: str, role: Callable[[str, str], str]
) -> None:
    """Forced, so that it holds for owners too; they are let through as workers are."""
    roles = "pressrun_api, pressrun_admin, pressrun_worker"
    plain = role("owner_of_a_test", f"IN ROLE {roles}")
    name = create_engine(empty_database_url).url
    admin = create_engine(name, isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(text(f"ALTER DATABASE {name.database} OWNER TO owner_of_a_test"))
    url = create_engine(plain).url.set(database=name.database)
    upgrade(url.render_as_string(hide_password=False))
    owner = create_engine(url)
    with owner.begin() as connection:
        fill(connection)
    assert ids(owner, "files") == ["file-a", "file-b"]
    walled = make_engine(str(url), process="test", pool_size=1, role=API_ROLE)
    with walled.begin() as connection:
        found = connection.execute(text("SELECT * FROM pressrun_key_owner('\\x00')")).all()
        assert found == []
        assert connection.execute(text("SELECT * FROM pool_work")).all() == []
        asked = text("SELECT pressrun_rivals_ahead('text', 'a', 0, 10)")
        assert connection.execute(asked).scalar_one() == 0
    with acting_for("a"):
        assert ids(walled, "files") == ["file-a"]
    for engine in (walled, owner):
        engine.dispose()
    with admin.connect() as connection:  # or the role could not be dropped
        connection.execute(text(f"ALTER DATABASE {name.database} OWNER TO CURRENT_USER"))
        connection.execute(text("REASSIGN OWNED BY owner_of_a_test TO CURRENT_USER"))
        connection.execute(text("DROP OWNED BY owner_of_a_test"))
    admin.dispose()
