"""Users of the database, one for each kind of process: so that the password of one opens no more
than that kind does. What the roles may do is in the migrations; here is who may become them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import Connection, text
from sqlalchemy.engine import make_url

from shared.db.security import ADMIN_ROLE, API_ROLE, WORKER_ROLE

if TYPE_CHECKING:
    from psycopg import Connection as DriverConnection

_ADVISORY_LOCK = 7_703_002
"""Two that make users at once take turns."""
_OPTIONS_OF_GRANTS = 160_000
"""The version of Postgres from which on a grant says itself whether its rights are inherited."""

_LOCK = text("SELECT pg_advisory_xact_lock(:id)")
_EXISTS = text("SELECT 1 FROM pg_roles WHERE rolname = :name")
_CURRENT = text("SELECT current_user")

_SPECIAL = text("""
SELECT rolsuper OR rolcreaterole OR rolcreatedb OR rolreplication OR rolbypassrls
  FROM pg_roles WHERE rolname = :name
""")

# Not of the rights alone: who belongs to a role without inheriting them may still become it.
_BELONGS = text("""
WITH RECURSIVE up AS (
    SELECT m.roleid FROM pg_auth_members m JOIN pg_roles r ON r.oid = m.member
     WHERE r.rolname = :name
    UNION
    SELECT m.roleid FROM pg_auth_members m JOIN up ON m.member = up.roleid)
SELECT r.rolname FROM up JOIN pg_roles r ON r.oid = up.roleid ORDER BY r.rolname
""")

_OWNS = text("""
SELECT c.relname FROM pg_class c JOIN pg_roles r ON r.oid = c.relowner
 WHERE r.rolname = :name ORDER BY c.relname LIMIT 1
""")


class LoginRefused(Exception):
    """A user can't be one of a kind of process; the message says why."""


@dataclass(frozen=True, slots=True)
class Login:
    """A user to be there."""

    name: str
    password: str
    roles: tuple[str, ...]
    """Those that it may become, and no others."""
    acts_as: str | None = None
    """The role that its connections have from the start; None: they have the rights of all."""


def login_of_api(url: str) -> Login:
    """The user in ``url`` as that of API processes. Raises LoginRefused without a password."""
    return _login(url, (API_ROLE, ADMIN_ROLE), API_ROLE)


def login_of_workers(url: str) -> Login:
    """As ``login_of_api``, of workers and upkeep."""
    return _login(url, (WORKER_ROLE,), None)


def _login(url: str, roles: tuple[str, ...], acts_as: str | None) -> Login:
    parts = make_url(url)
    if not parts.username or not parts.password:
        raise LoginRefused("the URL of a user needs its name and its password")
    return Login(parts.username, parts.password, roles, acts_as)


def ensure_login(connection: Connection, login: Login) -> bool:
    """Makes the user, or makes it what it is to be, its password included; for a transaction of
    somebody who may. True: it is new.

    Raises LoginRefused for one that can do more than it is to: roll back.
    """
    connection.execute(_LOCK, {"id": _ADVISORY_LOCK})
    mine = {"name": login.name}
    owner = connection.execute(_CURRENT).scalar_one()
    if login.name in {owner, API_ROLE, ADMIN_ROLE, WORKER_ROLE}:
        raise LoginRefused(f"{login.name} is taken: a kind of process needs a user of its own")
    is_new = connection.execute(_EXISTS, mine).scalar() is None
    driver = connection.connection.driver_connection
    assert driver is not None  # noqa: S101 - it has just run a statement
    if is_new:
        _run(driver, "CREATE ROLE {}", login.name)
    elif connection.execute(_SPECIAL, mine).scalar_one():
        raise LoginRefused(f"{login.name} may do more in the server than any process needs")
    _set_up(driver, login)
    _check(connection, login)
    return is_new


def _set_up(driver: DriverConnection, login: Login) -> None:
    from psycopg import sql  # with psycopg itself, which only those need who connect

    how = "INHERIT" if login.acts_as is None else "NOINHERIT"
    secret = driver.pgconn.encrypt_password(
        login.password.encode(), login.name.encode(), b"scram-sha-256"
    )
    name = sql.Identifier(login.name)
    # As its hash, so that no log of statements has the password.
    driver.execute(
        sql.SQL(f"ALTER ROLE {{}} LOGIN {how} PASSWORD {{}}").format(
            name, sql.Literal(secret.decode())
        )
    )
    options = ""
    if driver.info.server_version >= _OPTIONS_OF_GRANTS:
        options = f" WITH INHERIT {str(login.acts_as is None).upper()}, SET TRUE, ADMIN FALSE"
    for role in login.roles:
        _run(driver, f"GRANT {{}} TO {{}}{options}", role, login.name)
    if login.acts_as is None:
        _run(driver, "ALTER ROLE {} RESET role", login.name)
    else:
        _run(driver, f"ALTER ROLE {{}} SET role = '{login.acts_as}'", login.name)


def _run(driver: DriverConnection, statement: str, *names: str) -> None:
    from psycopg import sql

    driver.execute(sql.SQL(statement).format(*map(sql.Identifier, names)))


def _check(connection: Connection, login: Login) -> None:
    mine = {"name": login.name}
    others = set(connection.execute(_BELONGS, mine).scalars()) - set(login.roles)
    if others:
        raise LoginRefused(
            f"{login.name} also belongs to {', '.join(sorted(others))}: revoke that first"
        )
    owned = connection.execute(_OWNS, mine).scalar()
    if owned is not None:
        raise LoginRefused(f"{login.name} owns {owned}: owners can change what is theirs")
