"""Models: what may be asked for by name."""

from __future__ import annotations

from flask import Response

from api import rendering
from api.objects import Model, ModelList
from api.routes.replies import json_reply
from api.routing import RouteTable
from api.services import Services
from shared.db.models import get_model, list_models
from shared.errors import ModelNotFound

routes = RouteTable("Models", "What may be asked for by name")


@routes.get("/v1/models", answers={200: ModelList})
def list_all_models(services: Services, tenant_id: str) -> Response:
    """Every model this tenant may name."""
    with services.autocommit.connect() as connection:
        entries = list_models(connection, tenant_id)
    shown = [rendering.model(entry) for entry in entries]
    return json_reply(rendering.page(shown, len(shown)))


@routes.get("/v1/models/<path:model_id>", answers={200: Model}, errors=(ModelNotFound,))
def retrieve_model(services: Services, tenant_id: str, model_id: str) -> Response:
    """One model. Its name may hold slashes and colons."""
    entry = None
    if model_id.isprintable():
        with services.autocommit.connect() as connection:
            entry = get_model(connection, tenant_id, model_id)
    if entry is None:
        raise ModelNotFound("there is no such model", param="model")
    return json_reply(rendering.model(entry))
