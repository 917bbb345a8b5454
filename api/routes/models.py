"""Models: what may be asked for by name."""

from __future__ import annotations

from flask import Response

from api import alias_rendering, fine_tuning_rendering, rendering
from api.routes.deletions import with_record
from api.routes.replies import json_reply
from api.routing import RouteTable
from api.services import Services
from api.shapes import DeletedModel, Model, ModelList
from shared.db import aliases, models
from shared.errors import Conflict, Forbidden, ModelNotFound
from shared.lifecycle.deletion import request_model_deletion

routes = RouteTable("Models", "What may be asked for by name")


@routes.get("/v1/models", answers={200: ModelList})
def list_all_models(services: Services, tenant_id: str) -> Response:
    """Every model this tenant may name: everybody's and its own; then its aliases, which are
    `alias_of` one."""
    with services.autocommit.connect() as connection:
        held = aliases.held_aliases(connection, tenant_id)
        entries = {entry.id: entry for entry in models.list_models(connection, tenant_id)}
    shown = [fine_tuning_rendering.model(entry) for entry in entries.values()]
    shown += [
        alias_rendering.as_model(name, entries[holder])
        for name, holder in held.items()
        if holder in entries and name not in entries
    ]
    return json_reply(rendering.page(shown, len(shown)))


@routes.get("/v1/models/<path:model_id>", answers={200: Model}, errors=(ModelNotFound,))
def retrieve_model(services: Services, tenant_id: str, model_id: str) -> Response:
    """One model, or an alias of one. Its name may hold slashes and colons."""
    entry = None
    if model_id.isprintable():
        with services.autocommit.connect() as connection:
            entry = aliases.model_named(connection, tenant_id, model_id)
    if entry is None:
        raise ModelNotFound("there is no such model", param="model")
    if entry.id != model_id:
        return json_reply(alias_rendering.as_model(model_id, entry))
    return json_reply(fine_tuning_rendering.model(entry))


@routes.delete(
    "/v1/models/<path:model_id>",
    answers={200: DeletedModel},
    errors=(ModelNotFound, Conflict, Forbidden),
)
def delete_model(services: Services, tenant_id: str, model_id: str) -> Response:
    """Deletes a model of the tenant's own. Not while it holds an alias, an adapter needs it, or a
    training starts from it; everybody's models are not the tenant's to delete.
    `Pressrun-Deletion` is the record of it."""
    if not model_id.isprintable():
        raise ModelNotFound("there is no such model", param="model")
    with services.transaction() as connection:
        begun = request_model_deletion(
            connection,
            tenant_id=tenant_id,
            model_id=model_id,
            grace_seconds=services.settings.deletion_grace_seconds,
        )
    return with_record(json_reply({"id": model_id, "object": "model", "deleted": True}), begun)
