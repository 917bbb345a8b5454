"""Routes as data: the address, who may call, what goes in and what comes out.

One table a resource. ``register`` binds each view to the services and puts authentication before
it; ``api.document`` describes the same entries, so documentation and enforcement can't part.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, NoReturn

from flask import Flask, Response, request
from pydantic import BaseModel
from werkzeug.routing import Rule

from api.acting import go_on_acting
from api.services import LateServices
from api.shapes import Shape
from shared.db.security import acting_for, administrating
from shared.errors import IdempotencyMismatch, PressrunError, RequestUnderWay

Access = Literal["tenant", "admin", "open"]
Method = Literal["get", "post", "put", "patch", "delete"]
View = Callable[..., Response]
Schema = dict[str, Any]
Answer = Shape | str
"""A JSON shape, or what an answer without one is."""


def query(name: str, description: str, **schema: Any) -> Schema:
    """Documents a query parameter; keyword arguments are its JSON schema."""
    return {"name": name, "in": "query", "description": description, "schema": schema}


def header(name: str, description: str, **schema: Any) -> Schema:
    """Documents a request header."""
    return {"name": name, "in": "header", "description": description, "schema": schema}


LIMIT = query("limit", "Most items on a page", type="integer", minimum=1, maximum=100, default=20)
AFTER = query("after", "Start after the item with this id", type="string")
MULTIPART = "multipart/form-data"
IDEMPOTENCY_KEY = header(
    "Idempotency-Key",
    "The same key and body again: the first answer's job, not a second one",
    type="string",
    maxLength=255,
)
RETRY_COUNT = header(
    "x-stainless-retry-count",
    "As OpenAI's clients send it: above 0, a request that is the same as one of the last ten "
    "minutes gets that one's result",
    type="string",
)
_ONCE_ERRORS = (IdempotencyMismatch, RequestUnderWay)


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One address and method."""

    method: Method
    rule: str
    view: View
    access: Access = "tenant"
    answers: dict[int, Answer]
    errors: tuple[type[PressrunError], ...] = ()
    refusals: dict[int, str] = field(default_factory=dict)
    """Codes of problems that no error of the domain stands for."""
    parameters: tuple[Schema, ...] = ()
    body: type[BaseModel] | None = None
    body_types: tuple[str, ...] = ("application/json",)
    body_required: bool = True
    streams: bool = False
    """Whether a 200 may come as Server-Sent Events, where the caller asks for them."""


def _bind(view: View, access: Access, late: LateServices) -> Callable[..., Response]:
    def call_for_tenant(**found: str) -> Response:
        services = late()
        tenant_id = services.auth.tenant(request.headers.get("Authorization"))
        services.gate.enter(tenant_id)
        with acting_for(tenant_id):
            return go_on_acting(view(services, tenant_id, **found))

    def call_for_admin(**found: str) -> Response:
        services = late()
        services.auth.require_admin(request.headers.get("Authorization"))
        with administrating():
            return view(services, **found)

    def call(**found: str) -> Response:
        return view(late(), **found)

    bound = {"tenant": call_for_tenant, "admin": call_for_admin, "open": call}[access]
    bound.__name__, bound.__doc__ = view.__name__, view.__doc__
    return bound


class ReadOnlyRule(Rule):
    """A rule that is matched and never built: nothing here asks for a view's address (``url_for``),
    and generating the code that would tell it takes longer than all else about a rule."""

    def _compile_builder(self, append_unknown: bool = True) -> Callable[..., tuple[str, str]]:
        return _no_address


def _no_address(*_: object, **__: object) -> NoReturn:
    raise NotImplementedError("addresses are not built from views here")


@dataclass(slots=True)
class RouteTable:
    """The routes of one resource."""

    tag: str
    description: str
    routes: list[Route] = field(default_factory=list)

    def get(self, rule: str, **entry: Any) -> Callable[[View], View]:
        return self._add("get", rule, entry)

    def post(self, rule: str, **entry: Any) -> Callable[[View], View]:
        return self._add("post", rule, entry)

    def put(self, rule: str, **entry: Any) -> Callable[[View], View]:
        return self._add("put", rule, entry)

    def patch(self, rule: str, **entry: Any) -> Callable[[View], View]:
        return self._add("patch", rule, entry)

    def delete(self, rule: str, **entry: Any) -> Callable[[View], View]:
        return self._add("delete", rule, entry)

    def _add(self, method: Method, rule: str, entry: dict[str, Any]) -> Callable[[View], View]:
        if IDEMPOTENCY_KEY in entry.get("parameters", ()):
            known = entry.get("errors", ())
            entry["parameters"] = (*entry["parameters"], RETRY_COUNT)
            entry["errors"] = (*known, *(error for error in _ONCE_ERRORS if error not in known))

        def add(view: View) -> View:
            self.routes.append(Route(method=method, rule=rule, view=view, **entry))
            return view

        return add

    def register(self, app: Flask, services: LateServices) -> None:
        for route in self.routes:
            app.add_url_rule(
                route.rule,
                endpoint=route.view.__name__,
                view_func=_bind(route.view, route.access, services),
                methods=[route.method.upper()],
            )
