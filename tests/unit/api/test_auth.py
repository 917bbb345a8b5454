"""Keys: what they look like, and how they are refused."""

from __future__ import annotations

import pytest
from sqlalchemy import create_engine

from api import auth
from api.auth import Authenticator
from api.caching import RecentCache
from shared.db.api_keys import KeyOwner
from shared.errors import Forbidden, Unauthenticated

UNREACHABLE = "postgresql+psycopg://nobody@127.0.0.1:1/nothing"
"""A key that could not be ours is refused without asking the database; this proves it."""


def test_keys_are_long_checked_and_never_the_same() -> None:
    keys = {auth.new_key() for _ in range(100)}
    assert len(keys) == 100
    for key in keys:
        assert auth.is_well_formed(key)
        assert key.startswith("pr_live_")
        assert len(auth.visible_prefix(key)) < 16


def test_a_typing_error_is_noticed() -> None:
    key = auth.new_key()
    for place in range(len(key)):
        other = "x" if key[place] != "x" else "y"
        assert not auth.is_well_formed(key[:place] + other + key[place + 1 :])
    assert not auth.is_well_formed(key[:-1])
    assert not auth.is_well_formed(key + "0")
    assert not auth.is_well_formed(key + "\n")


@pytest.fixture
def authenticator() -> Authenticator:
    engine = create_engine(UNREACHABLE)
    return Authenticator(engine, admin_key="the admin's key", cache_seconds=60)


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        "Basic abc",
        "pr_live_abc",
        "Bearer pr_live_abc",
        "Bearer ünïcode",
        "Bearer " + "x" * 100_000,
    ],
)
def test_a_header_without_a_possible_key_is_refused(
    authenticator: Authenticator, header: str | None
) -> None:
    with pytest.raises(Unauthenticated):
        authenticator.tenant(header)
    with pytest.raises(Unauthenticated):
        authenticator.require_admin(header)


def test_the_admin_key_is_not_a_tenants(authenticator: Authenticator) -> None:
    authenticator.require_admin("Bearer the admin's key")
    with pytest.raises(Forbidden):
        authenticator.tenant("Bearer the admin's key")


def test_without_an_admin_key_there_is_no_administration() -> None:
    closed = Authenticator(create_engine(UNREACHABLE), admin_key=None, cache_seconds=60)
    with pytest.raises(Forbidden):
        closed.require_admin("Bearer anything")
    with pytest.raises(Forbidden):
        closed.require_admin(None)


@pytest.mark.parametrize(
    ("seconds_left", "asked"), [(None, 1), (3_600.0, 1), (30.0, 3), (0.5, 3), (0.0, 3)]
)
def test_a_key_is_never_trusted_for_longer_than_it_lives(
    monkeypatch: pytest.MonkeyPatch, seconds_left: float | None, asked: int
) -> None:
    """What was once found is not asked for again for a minute, unless it ends before that."""
    looks: list[bytes] = []

    def find(_: object, key_hash: bytes) -> KeyOwner:
        looks.append(key_hash)
        return KeyOwner("ten_a", seconds_left)

    clock = {"now": 0.0}
    monkeypatch.setattr(auth, "find_owner", find)
    asking = Authenticator(create_engine("sqlite://"), admin_key=None, cache_seconds=60)
    asking._tenants = RecentCache(8, clock=lambda: clock["now"])
    key = auth.new_key()
    for now in (0.0, 31.0, 62.0 if asked > 1 else 59.0):
        clock["now"] = now
        assert asking.tenant(f"Bearer {key}") == "ten_a"
    assert looks == [auth.hash_key(key)] * asked
