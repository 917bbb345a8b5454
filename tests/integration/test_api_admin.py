"""Tenants, keys, health."""

from __future__ import annotations

import pytest
from sqlalchemy import text

from api import admin_objects, objects
from tests.integration.api_case import ADMIN, ApiCase, api_fixture, make_settings

__all__ = ["api_fixture"]


def make_key(api: ApiCase, **body: object) -> tuple[str, dict[str, object]]:
    """A new tenant's keys address, and a key of it."""
    tenant = api.client.post("/v1/admin/tenants", json={"name": "t"}, headers=ADMIN).json
    admin_objects.Tenant.model_validate(tenant)
    path = f"/v1/admin/tenants/{tenant['id']}/keys"
    key = api.client.post(path, json=body, headers=ADMIN)
    assert key.status_code == 201
    admin_objects.NewKey.model_validate(key.json)
    return path, key.json


def works(api: ApiCase, key: object) -> bool:
    reply = api.client.get("/v1/models", headers={"Authorization": f"Bearer {key}"})
    assert reply.status_code in {200, 401, 403}
    if reply.status_code == 401:
        assert reply.json["error"]["code"] == "invalid_api_key"
        assert reply.headers["WWW-Authenticate"] == "Bearer"
    return reply.status_code == 200


def test_a_key_is_shown_once_and_kept_as_a_hash(api: ApiCase) -> None:
    path, key = make_key(api, name="laptop")
    assert works(api, key["key"])
    listed = api.client.get(path, headers=ADMIN).json
    admin_objects.KeyList.model_validate(listed)
    (entry,) = listed["data"]
    assert "key" not in entry
    assert (entry["name"], entry["prefix"]) == ("laptop", str(key["key"])[:14])
    with api.begin() as connection:
        stored = connection.execute(text("SELECT k::text FROM api_keys k")).scalars().all()
    assert not any(str(key["key"])[14:] in row for row in stored)


def test_a_revoked_key_stops_working_here_at_once(api: ApiCase) -> None:
    path, key = make_key(api)
    assert works(api, key["key"])
    revoked = api.client.delete(f"{path}/{key['id']}", headers=ADMIN).json
    assert revoked["revoked_at"] is not None
    assert not works(api, key["key"])
    assert api.client.delete(f"{path}/{key['id']}", headers=ADMIN).json == revoked


def test_a_key_may_expire(api: ApiCase) -> None:
    _, key = make_key(api, expires_in_seconds=3_600)
    assert works(api, key["key"])
    with api.begin() as connection:
        connection.execute(text("UPDATE api_keys SET expires_at = clock_timestamp()"))
    api.services.auth.forget()
    assert not works(api, key["key"])


def test_the_keys_of_a_disabled_tenant_do_not_work(api: ApiCase) -> None:
    _, key = make_key(api)
    with api.begin() as connection:
        connection.execute(text("UPDATE tenants SET disabled_at = clock_timestamp()"))
    assert not works(api, key["key"])


def test_a_known_key_is_not_looked_up_again(api: ApiCase) -> None:
    _, key = make_key(api)
    assert works(api, key["key"])
    with api.count_statements() as statements:
        assert works(api, key["key"])
    assert not any("api_keys" in statement for statement in statements)


def test_unknown_tenants_and_keys_are_not_found(api: ApiCase) -> None:
    path, key = make_key(api)
    other, _ = make_key(api)
    absent = "/v1/admin/tenants/ten_absent/keys"
    assert api.client.post(absent, json={}, headers=ADMIN).status_code == 404
    assert api.client.get(absent, headers=ADMIN).status_code == 404
    assert api.client.delete(f"{other}/{key['id']}", headers=ADMIN).status_code == 404
    assert works(api, key["key"])
    assert api.client.delete(f"{path}/key_absent", headers=ADMIN).status_code == 404


def test_tenants_are_listed(api: ApiCase) -> None:
    for _ in range(3):
        api.new_tenant()
    first = api.client.get("/v1/admin/tenants?limit=3", headers=ADMIN).json
    admin_objects.TenantList.model_validate(first)
    path = f"/v1/admin/tenants?limit=3&after={first['last_id']}"
    rest = api.client.get(path, headers=ADMIN).json
    assert (len(first["data"]), len(rest["data"]), rest["has_more"]) == (3, 1, False)


@pytest.mark.parametrize(
    "body", [{}, {"name": ""}, {"name": 1}, {"name": "a\0b"}, {"name": "x" * 257}, {"names": "x"}]
)
def test_a_tenant_needs_a_name(api: ApiCase, body: dict[str, object]) -> None:
    reply = api.client.post("/v1/admin/tenants", json=body, headers=ADMIN)
    assert reply.status_code == 400


def test_health(api: ApiCase) -> None:
    assert api.client.get("/healthz").json == {"status": "ok"}
    ready = api.client.get("/readyz")
    objects.Readiness.model_validate(ready.json)
    assert (ready.status_code, ready.json["broker"]) == (200, "off")


def test_a_broker_that_is_down_only_degrades(api: ApiCase, tmp_path: object) -> None:
    settings = make_settings(
        api.settings.database_url,
        tmp_path,
        broker_url="amqp://guest@127.0.0.1:1//",  # type: ignore[arg-type]
    )
    degraded = ApiCase(settings)
    try:
        ready = degraded.client.get("/readyz")
        assert (ready.status_code, ready.json["broker"]) == (200, "degraded")
        assert degraded.submit()
    finally:
        degraded.close()


def test_lost_connections_cost_at_most_one_answer(api: ApiCase) -> None:
    job_id = api.submit()
    with api.begin() as connection:
        connection.execute(
            text(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        )
    first = api.get(f"/v1/jobs/{job_id}")
    assert first.status_code in {200, 503}
    if first.status_code == 503:
        assert first.json["error"]["code"] == "database_unavailable"
    assert api.get(f"/v1/jobs/{job_id}").status_code == 200
