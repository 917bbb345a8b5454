"""What a tenant's rows and plans may name: models, and the aliases that models hold."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from shared.db.models import Model
from shared.errors import ModelNotFound
from shared.translation import serves
from shared.translation.moderations import moderator


def with_moderator(
    models: Mapping[str, Model], aliases: Mapping[str, str], configured: str | None
) -> Mapping[str, str]:
    """``aliases``, and under no name at all the model that moderates where none is named."""
    name = moderator({model.id: model.endpoints for model in models.values()}, configured)
    return aliases if name is None else {**aliases, "": aliases.get(name, name)}


class Names:
    """Models by name or alias, as they stood when it was made. Called, it is an ``Offers``.

    ``models`` are all that the tenant may name, by name and in that order; ``aliases`` name some of
    them. A model comes before an alias of the same name.
    """

    def __init__(
        self,
        models: Mapping[str, Model],
        aliases: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self._models = models
        self._aliases = aliases
        self.asked: dict[str, str] = {}
        """The aliases that were looked up so far, and who holds them."""

    def find(self, name: str) -> Model | None:
        """The model that ``name`` stands for."""
        found = self._models.get(name)
        if found is None and name in self._aliases:
            found = self._models.get(self._aliases[name])
            if found is not None:
                self.asked[name] = found.id
        return found

    def __call__(self, endpoint: str, name: str | None, param: str) -> Model:
        if name is None:
            return self._first(endpoint, param)
        found = self.find(name)
        if found is None:
            raise ModelNotFound("there is no such model", param=param)
        if not serves(found.endpoints, endpoint):
            raise ModelNotFound(f"the model {name!r} does not serve {endpoint}", param=param)
        return found

    def _first(self, endpoint: str, param: str) -> Model:
        for model in self._models.values():
            if endpoint in model.endpoints:
                return model
        raise ModelNotFound(f"there is no model that serves {endpoint}", param=param)
