"""Administration: tenants and their keys."""

from __future__ import annotations

from typing import Any

from flask import Response, request

from api import parsing, rendering
from api.auth import hash_key, new_key, visible_prefix
from api.requests import KeyRequest, TenantChange, TenantRequest
from api.routes.replies import json_reply
from api.routing import AFTER, LIMIT, RouteTable
from api.services import Services
from api.shapes import Key, KeyList, NewKey, Tenant, TenantList
from shared.db import api_keys, tenants
from shared.db.security import acting_for
from shared.errors import NotFound
from shared.ids import new_key_id, new_tenant_id
from shared.lifecycle.limits import wait_for_writers
from shared.lifecycle.quotas import hold_open

routes = RouteTable("Admin", "Tenants and their keys")

MOST_WAIT_SECONDS = 5.0
"""For submissions that were under way when limits were set; upkeep counts those that go on."""


@routes.post("/v1/admin/tenants", access="admin", body=TenantRequest, answers={201: Tenant})
def create_tenant(services: Services) -> Response:
    """A new tenant, without keys."""
    document = parsing.json_body(request, max_bytes=services.settings.max_body_bytes)
    asked = parsing.validate(TenantRequest, document)
    parsing.plain_text(asked.name, "name")
    tenant_id = new_tenant_id()
    with services.transaction() as connection:
        tenants.insert_tenant(connection, tenant_id=tenant_id, name=asked.name)
        tenants.change_tenant(connection, tenant_id, _changes(asked))
        row = _found(tenants.get_tenant(connection, tenant_id))
    return json_reply(rendering.tenant(row), 201)


@routes.get(
    "/v1/admin/tenants", access="admin", parameters=(LIMIT, AFTER), answers={200: TenantList}
)
def list_all_tenants(services: Services) -> Response:
    """Tenants, newest first."""
    limit, after = parsing.page(request)
    with services.autocommit.connect() as connection:
        rows = tenants.list_tenants(connection, after=after, limit=limit + 1)
    return json_reply(rendering.page([rendering.tenant(row) for row in rows], limit))


@routes.get("/v1/admin/tenants/<tenant_id>", access="admin", answers={200: Tenant})
def retrieve_tenant(services: Services, tenant_id: str) -> Response:
    """A tenant and its limits."""
    parsing.one_id(tenant_id, "tenant")
    with services.autocommit.connect() as connection:
        row = _found(tenants.get_tenant(connection, tenant_id))
    return json_reply(rendering.tenant(row))


@routes.patch(
    "/v1/admin/tenants/<tenant_id>", access="admin", body=TenantChange, answers={200: Tenant}
)
def change_tenant(services: Services, tenant_id: str) -> Response:
    """Changes a tenant: its name, weight and limits, or whether it is disabled. Then its keys are
    refused, by all processes within two seconds; its work waits, but for what runs."""
    parsing.one_id(tenant_id, "tenant")
    document = parsing.json_body(request, max_bytes=services.settings.max_body_bytes)
    asked = parsing.validate(TenantChange, document)
    if asked.name is not None:
        parsing.plain_text(asked.name, "name")
    with services.transaction() as connection:
        tenants.change_tenant(connection, tenant_id, _changes(asked))
        row = _found(tenants.get_tenant(connection, tenant_id))
    if row.limits.bind_work:
        with services.autocommit.connect() as connection:
            wait_for_writers(connection, seconds=MOST_WAIT_SECONDS)
        with acting_for(tenant_id), services.transaction() as connection:
            hold_open(connection, tenant_id)
    services.gate.forget()
    return json_reply(rendering.tenant(row))


def _changes(asked: TenantRequest | TenantChange) -> dict[str, Any]:
    """What a null says nothing about is left out; a limit of null is one that is taken away."""
    own = {name: getattr(asked, name) for name in asked.model_fields_set - {"limits"}}
    limits = {name: getattr(asked.limits, name) for name in asked.limits.model_fields_set}
    return {name: value for name, value in own.items() if value is not None} | limits


def _found(row: tenants.TenantRow | None) -> tenants.TenantRow:
    if row is None:
        raise NotFound("there is no such tenant")
    return row


@routes.post(
    "/v1/admin/tenants/<tenant_id>/keys",
    access="admin",
    body=KeyRequest,
    body_required=False,
    answers={201: NewKey},
)
def create_key(services: Services, tenant_id: str) -> Response:
    """A new key; this is the only time that it is shown."""
    parsing.one_id(tenant_id, "tenant")
    asked = KeyRequest()
    if request.content_length or request.mimetype:
        document = parsing.json_body(request, max_bytes=services.settings.max_body_bytes)
        asked = parsing.validate(KeyRequest, document)
    parsing.plain_text(asked.name, "name")
    key = new_key()
    with services.autocommit.connect() as connection:
        if tenants.get_tenant(connection, tenant_id) is None:
            raise NotFound("there is no such tenant")
        row = api_keys.insert_key(
            connection,
            key_id=new_key_id(),
            tenant_id=tenant_id,
            name=asked.name,
            prefix=visible_prefix(key),
            key_hash=hash_key(key),
            expires_in_seconds=asked.expires_in_seconds,
        )
    return json_reply({**rendering.key(row), "key": key}, 201, {"Cache-Control": "no-store"})


@routes.get(
    "/v1/admin/tenants/<tenant_id>/keys",
    access="admin",
    parameters=(LIMIT, AFTER),
    answers={200: KeyList},
)
def list_tenant_keys(services: Services, tenant_id: str) -> Response:
    """A tenant's keys, newest first, without the keys themselves."""
    parsing.one_id(tenant_id, "tenant")
    limit, after = parsing.page(request)
    with services.autocommit.connect() as connection:
        if tenants.get_tenant(connection, tenant_id) is None:
            raise NotFound("there is no such tenant")
        rows = api_keys.list_keys(connection, tenant_id, after=after, limit=limit + 1)
    return json_reply(rendering.page([rendering.key(row) for row in rows], limit))


@routes.delete("/v1/admin/tenants/<tenant_id>/keys/<key_id>", access="admin", answers={200: Key})
def revoke_key(services: Services, tenant_id: str, key_id: str) -> Response:
    """Ends a key: at once in this process, within `PRESSRUN_KEY_CACHE_SECONDS` in others."""
    parsing.one_id(tenant_id, "tenant")
    parsing.one_id(key_id, "key")
    with services.autocommit.connect() as connection:
        row = api_keys.revoke_key(connection, tenant_id, key_id)
    if row is None:
        raise NotFound("there is no such key")
    services.auth.forget()
    return json_reply(rendering.key(row))
