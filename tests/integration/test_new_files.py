"""An API that dies while it keeps a file leaves no object that no row knows."""

from __future__ import annotations

from typing import Any, NoReturn

import pytest
from sqlalchemy import text

from api import new_files
from tests.integration.api_case import ApiCase, api_fixture
from tests.integration.retention_case import objects_below
from worker.upkeep.cleaner import Cleaner

__all__ = ["api_fixture"]


class Killed(BaseException):
    """Nothing that runs in the process sees this one."""


def die(*_: Any) -> NoReturn:
    raise Killed


def sql(api: ApiCase, statement: str) -> list[str]:
    """The first column, if any."""
    with api.begin() as connection:
        found = connection.execute(text(statement))
        return list(found.scalars()) if found.returns_rows else []


def stored(api: ApiCase) -> list[str]:
    folder = api.settings.storage_dir
    assert folder is not None
    (tenant_id,) = sql(api, "SELECT id FROM tenants")
    return objects_below(folder, tenant_id)


def announced(api: ApiCase) -> list[str]:
    return sql(api, "SELECT key FROM begun_objects")


def test_a_kept_file_is_named_by_its_row(api: ApiCase) -> None:
    file_id = api.upload(b"{}\n").json["id"]
    (key,) = stored(api)
    assert key.endswith(f"/f/{file_id}")
    assert announced(api) == []


def test_a_refused_file_leaves_nothing(api: ApiCase) -> None:
    sql(api, "INSERT INTO tenant_limits (tenant_id, stored_bytes) SELECT id, 5 FROM tenants")
    assert api.upload(b"{}\n").status_code == 200
    before = stored(api)
    assert api.upload(b"{}\n").status_code == 429
    assert stored(api) == before
    assert announced(api) == []


def test_what_was_stored_before_a_kill_is_known_and_goes(
    api: ApiCase, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(new_files, "_insert", die)
        with pytest.raises(Killed):
            api.upload(b"{}\n")
    assert len(stored(api)) == 1
    assert stored(api) == announced(api)
    sql(api, "UPDATE begun_objects SET begun_at = begun_at - interval '61 minutes'")
    Cleaner(api.engine, api.services.store).run()
    assert (stored(api), announced(api)) == ([], [])
    assert api.upload(b"{}\n").status_code == 200
