"""What a tenant's plans may choose from."""

from __future__ import annotations

from collections.abc import Mapping

from shared.db.models import Model
from shared.errors import ModelNotFound
from shared.plans import Offers


def offers_from(models: Mapping[str, Model]) -> Offers:
    """``models`` are all that the tenant may name, by name and in that order."""

    def offer(endpoint: str, model_id: str | None, param: str) -> Model:
        if model_id is None:
            for model in models.values():
                if endpoint in model.endpoints:
                    return model
            raise ModelNotFound(f"there is no model that serves {endpoint}", param=param)
        found = models.get(model_id)
        if found is None:
            raise ModelNotFound("there is no such model", param=param)
        if endpoint not in found.endpoints:
            raise ModelNotFound(f"the model {model_id!r} does not serve {endpoint}", param=param)
        return found

    return offer
