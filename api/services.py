"""What a request works with. Built once by ``create_app``; nothing here is opened before use."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Lock
from typing import Protocol

from sqlalchemy import Connection, Engine

from api.auth import Authenticator
from api.broker import BrokerProbe
from api.caching import RecentCache
from api.delta_reader import DeltaReader
from api.estimates import Estimator
from api.group_commit import GroupCommit
from api.limits import MAX_CACHED_MODELS, MODEL_CACHE_SECONDS
from api.rate_limiting import Gate
from api.under_way import UnderWay
from api.waiting import Waiter
from shared.db.aliases import model_named
from shared.db.models import Model, get_model, list_models
from shared.errors import ModelNotFound
from shared.lifecycle import NewGeneration
from shared.settings import Settings
from shared.specs.aliases import is_alias_name
from shared.storage.base import Store
from shared.translation import serves


class Bell(Protocol):
    """Announces work to the workers of a pool; never waits, never fails."""

    def ring(self, pool: str) -> None: ...

    def close(self) -> None: ...


class ModelCatalog:
    """Models by tenant and name, as they were up to two seconds ago. Who holds an alias is asked
    every time: whoever has moved one expects the next call to go there."""

    def __init__(self, engine: Engine) -> None:
        """``engine`` must autocommit."""
        self._engine = engine
        self._recent: RecentCache[tuple[str, str], Model] = RecentCache(MAX_CACHED_MODELS)

    def serving(self, tenant_id: str, model_id: str, endpoint: str, *, param: str) -> Model:
        """The model of that name, or the one that holds the alias of that name. Raises
        ModelNotFound when the tenant has none that serves the endpoint."""
        model = self._find(tenant_id, model_id)
        if model is None:
            raise ModelNotFound("there is no such model", param=param)
        if not serves(model.endpoints, endpoint):
            raise ModelNotFound(f"the model {model.id!r} does not serve {endpoint}", param=param)
        return model

    def first_serving(self, tenant_id: str, endpoint: str, *, param: str) -> Model:
        """The tenant's first model, by name, that serves the endpoint. Raises ModelNotFound."""
        for model in self.all(tenant_id):
            if endpoint in model.endpoints:
                return model
        raise ModelNotFound(f"there is no model that serves {endpoint}", param=param)

    def offers(self, tenant_id: str) -> NamedModels:
        """What one request of the tenant may choose from."""
        return NamedModels(self, tenant_id)

    def all(self, tenant_id: str) -> list[Model]:
        """Every model that the tenant may name, by name."""
        with self._engine.connect() as connection:
            return list_models(connection, tenant_id)

    def _find(self, tenant_id: str, model_id: str) -> Model | None:
        if is_alias_name(model_id):
            with self._engine.connect() as connection:
                return model_named(connection, tenant_id, model_id)
        model = self._recent.get((tenant_id, model_id))
        if model is None and "\0" not in model_id:
            with self._engine.connect() as connection:
                model = get_model(connection, tenant_id, model_id)
            if model is not None:
                self._recent.put((tenant_id, model_id), model, MODEL_CACHE_SECONDS)
        return model


class NamedModels:
    """The models that one request names. Called, it is an ``Offers``: every mention of an alias
    means the same model."""

    def __init__(self, catalog: ModelCatalog, tenant_id: str) -> None:
        self._catalog = catalog
        self._tenant_id = tenant_id
        self.aliases: dict[str, str] = {}
        """Who holds the aliases that were named so far."""

    def __call__(self, endpoint: str, name: str | None, param: str) -> Model:
        """Raises ModelNotFound."""
        if name is None:
            return self._catalog.first_serving(self._tenant_id, endpoint, param=param)
        known = self.aliases.get(name, name)
        model = self._catalog.serving(self._tenant_id, known, endpoint, param=param)
        if model.id != known:
            self.aliases[name] = model.id
        return model


@dataclass(frozen=True, slots=True)
class Services:
    """Everything a view needs, by keyword."""

    settings: Settings
    engine: Engine
    autocommit: Engine
    """Each statement is its own transaction."""
    intake: GroupCommit[NewGeneration]
    """Queues inference calls."""
    store: Store
    bell: Bell
    broker: BrokerProbe
    auth: Authenticator
    gate: Gate
    models: ModelCatalog
    waiter: Waiter
    estimator: Estimator
    deltas: DeltaReader
    under_way: UnderWay = field(default_factory=UnderWay)

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """A connection whose work is committed at the end of the block, or rolled back."""
        with self.engine.begin() as connection:
            yield connection

    def close(self) -> None:
        """Lets long-polls go, sends the last doorbells, closes connections."""
        self.waiter.close()
        self.deltas.close()
        self.bell.close()
        self.engine.dispose()
        self.autocommit.dispose()


class LateServices:
    """The services of an application, made when somebody first asks: the driver of the database
    and its dialect are a sixth of what there is to import, and only requests need them.

    Safe to share between threads; everybody gets the same.
    """

    def __init__(self, make: Callable[[], Services]) -> None:
        self._make = make
        self._made: Services | None = None
        self._lock = Lock()

    def __call__(self) -> Services:
        if self._made is None:
            with self._lock:
                if self._made is None:
                    self._made = self._make()
        return self._made

    def close(self) -> None:
        """Closes them, if there are any."""
        if self._made is not None:
            self._made.close()
