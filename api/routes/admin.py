"""Administration: tenants and their keys."""

from __future__ import annotations

from flask import Response, request

from api import parsing, rendering
from api.auth import hash_key, new_key, visible_prefix
from api.requests import KeyRequest, TenantRequest
from api.routes.replies import json_reply
from api.routing import AFTER, LIMIT, RouteTable
from api.services import Services
from api.shapes import Key, KeyList, NewKey, Tenant, TenantList
from shared.db import api_keys, tenants
from shared.errors import NotFound
from shared.ids import new_key_id, new_tenant_id

routes = RouteTable("Admin", "Tenants and their keys")


@routes.post("/v1/admin/tenants", access="admin", body=TenantRequest, answers={201: Tenant})
def create_tenant(services: Services) -> Response:
    """A new tenant, without keys."""
    document = parsing.json_body(request, max_bytes=services.settings.max_body_bytes)
    asked = parsing.validate(TenantRequest, document)
    parsing.plain_text(asked.name, "name")
    with services.autocommit.connect() as connection:
        row = tenants.insert_tenant(connection, tenant_id=new_tenant_id(), name=asked.name)
    return json_reply(rendering.tenant(row), 201)


@routes.get(
    "/v1/admin/tenants", access="admin", parameters=(LIMIT, AFTER), answers={200: TenantList}
)
def list_all_tenants(services: Services) -> Response:
    """Tenants, newest first."""
    limit = parsing.integer(request, "limit", default=20, least=1, most=100)
    after = parsing.cursor(request)
    with services.autocommit.connect() as connection:
        rows = tenants.list_tenants(connection, after=after, limit=limit + 1)
    return json_reply(rendering.page([rendering.tenant(row) for row in rows], limit))


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
    limit = parsing.integer(request, "limit", default=20, least=1, most=100)
    after = parsing.cursor(request)
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
