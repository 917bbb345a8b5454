"""Aliases: names that a tenant moves from model to model, by hand or by a gate."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from flask import Response, request
from sqlalchemy import Connection

from api import alias_rendering, parsing, rendering
from api.alias_requests import expected_of, submit_gate
from api.idempotency import once_for
from api.rendering import Object
from api.routes.replies import json_reply
from api.routing import AFTER, IDEMPOTENCY_KEY, LIMIT, RouteTable, query
from api.services import Services
from api.shapes import (
    DeletedModelAlias,
    ModelAlias,
    ModelAliasList,
    ModelAliasMoveList,
)
from shared.db.aliases import AliasRow, get_alias, list_aliases, list_moves
from shared.errors import (
    Conflict,
    IdempotencyMismatch,
    InvalidRequest,
    ModelNotFound,
    ModelNotMeasurable,
    NotFound,
)
from shared.lifecycle import aliases as lifecycle
from shared.specs.aliases import AliasMoveSpec, AliasRollbackSpec, AliasSpec, is_alias_name

ALIASES = "/v1/model_aliases"
ONE = f"{ALIASES}/<alias_name>"
NOTHING = "there is no such alias"
MOST_ID = 2**59

routes = RouteTable("Aliases", "Names that move from model to model")


@routes.post(
    ALIASES,
    body=AliasSpec,
    parameters=(IDEMPOTENCY_KEY,),
    answers={201: ModelAlias},
    errors=(ModelNotFound, Conflict),
)
def create_model_alias(services: Services, tenant_id: str) -> Response:
    """Makes an alias such as `news-writer@production`. It may stand wherever a request names a
    model, and never takes the place of a model of that name."""
    document = parsing.json_body(request, max_bytes=services.settings.max_body_bytes)
    asked = parsing.validate(AliasSpec, document)
    once = once_for(f"POST {ALIASES}", parsing.idempotency_key(request), document)
    first = once.first_use(services, tenant_id)
    if first is not None:
        return json_reply(_show(services, tenant_id, first), HTTPStatus.CREATED)
    with services.transaction() as connection:
        lifecycle.create_alias(connection, tenant_id=tenant_id, name=asked.name, model=asked.model)
        once.made(connection, tenant_id, asked.name)
        row = _find(connection, tenant_id, asked.name)
    return json_reply(alias_rendering.alias(row), HTTPStatus.CREATED)


@routes.get(
    ALIASES,
    parameters=(LIMIT, query("after", "Start after the alias of this name", type="string")),
    answers={200: ModelAliasList},
)
def list_model_aliases(services: Services, tenant_id: str) -> Response:
    """Aliases, by name."""
    limit = parsing.integer(request, "limit", default=20, least=1, most=100)
    after = request.args.get("after")
    if after is not None and not is_alias_name(after):
        raise InvalidRequest("'after' must be the name of the last alias seen", param="after")
    with services.autocommit.connect() as connection:
        rows = list_aliases(connection, tenant_id, after=after, limit=limit + 1)
    return json_reply(rendering.page([alias_rendering.alias(row) for row in rows], limit))


@routes.get(ONE, answers={200: ModelAlias})
def retrieve_model_alias(services: Services, tenant_id: str, alias_name: str) -> Response:
    """An alias, and who holds it."""
    return json_reply(_show(services, tenant_id, alias_name))


@routes.post(
    ONE,
    body=AliasMoveSpec,
    parameters=(IDEMPOTENCY_KEY,),
    answers={200: ModelAlias, 202: ModelAlias},
    errors=(ModelNotFound, ModelNotMeasurable, Conflict, IdempotencyMismatch),
)
def move_model_alias(services: Services, tenant_id: str, alias_name: str) -> Response:
    """Moves an alias to another model: at once, or, with a `gate`, once an evaluation has found
    that model better than the holder; `gate_job_id` is that evaluation. The `Idempotency-Key` is
    the gate's."""
    document = parsing.json_body(request, max_bytes=services.settings.max_body_bytes)
    once = once_for(f"POST {ALIASES}/{alias_name}", parsing.idempotency_key(request), document)
    asked = parsing.validate(AliasMoveSpec, document)
    name = _known(alias_name)
    if asked.gate is not None:
        job_id = submit_gate(services, tenant_id, name, asked, once)
        shown = _show(services, tenant_id, name) | {"gate_job_id": job_id}
        return json_reply(shown, HTTPStatus.ACCEPTED)
    with services.transaction() as connection:
        lifecycle.move_alias(
            connection,
            tenant_id=tenant_id,
            name=name,
            model=asked.model,
            expected=expected_of(asked),
        )
        row = _find(connection, tenant_id, name)
    return json_reply(alias_rendering.alias(row))


@routes.post(
    f"{ONE}/rollback",
    body=AliasRollbackSpec,
    body_required=False,
    parameters=(IDEMPOTENCY_KEY,),
    answers={200: ModelAlias},
    errors=(Conflict,),
)
def roll_back_model_alias(services: Services, tenant_id: str, alias_name: str) -> Response:
    """Gives an alias back to the model that held it before; once more: to the one before that."""
    document: Any = {}
    if request.content_length or request.mimetype:
        document = parsing.json_body(request, max_bytes=services.settings.max_body_bytes)
    asked = parsing.validate(AliasRollbackSpec, document)
    name, route = _known(alias_name), f"POST {ALIASES}/{alias_name}/rollback"
    once = once_for(route, parsing.idempotency_key(request), document)
    if once.first_use(services, tenant_id) is not None:
        return json_reply(_show(services, tenant_id, name))
    with services.transaction() as connection:
        lifecycle.rollback_alias(
            connection, tenant_id=tenant_id, name=name, expected=expected_of(asked)
        )
        once.made(connection, tenant_id, name)
        row = _find(connection, tenant_id, name)
    return json_reply(alias_rendering.alias(row))


@routes.get(f"{ONE}/history", parameters=(LIMIT, AFTER), answers={200: ModelAliasMoveList})
def list_model_alias_moves(services: Services, tenant_id: str, alias_name: str) -> Response:
    """Where an alias has been, newest first: every move, and every gate that stayed shut."""
    limit = parsing.integer(request, "limit", default=20, least=1, most=100)
    before = parsing.integer(request, "after", default=MOST_ID, least=0, most=MOST_ID)
    with services.autocommit.connect() as connection:
        row = _find(connection, tenant_id, alias_name)
        moves = list_moves(connection, tenant_id, row.id, before=before, limit=limit + 1)
    shown = [alias_rendering.move(move, row.name) for move in moves]
    return json_reply(rendering.page(shown, limit))


@routes.delete(ONE, answers={200: DeletedModelAlias})
def delete_model_alias(services: Services, tenant_id: str, alias_name: str) -> Response:
    """Deletes an alias and its history. Jobs keep the models that it stood for."""
    with services.transaction() as connection:
        name = _known(alias_name)
        if not lifecycle.delete_alias(connection, tenant_id=tenant_id, name=name):
            raise NotFound(NOTHING)
    return json_reply({"id": name, "object": "model_alias", "deleted": True})


def _show(services: Services, tenant_id: str, name: str) -> Object:
    with services.autocommit.connect() as connection:
        return alias_rendering.alias(_find(connection, tenant_id, name))


def _find(connection: Connection, tenant_id: str, name: str) -> AliasRow:
    row = get_alias(connection, tenant_id, _known(name))
    if row is None:
        raise NotFound(NOTHING)
    return row


def _known(name: str) -> str:
    if not is_alias_name(name):
        raise NotFound(NOTHING)
    return name
