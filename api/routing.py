"""Routes as data: the address, who may call, what goes in and what comes out.

One table a resource; registering it binds each view to the services, puts authentication before
it, and documents it. Documentation and enforcement can't part, being made of the same entry.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from flask import Response, request
from flask_openapi.blueprint import APIBlueprint
from flask_openapi.models.tag import Tag
from flask_openapi.openapi import OpenAPI
from pydantic import BaseModel

from api.errors import STATUS
from api.objects import Problem
from api.services import Services
from shared.errors import (
    DatabaseUnavailable,
    Forbidden,
    InvalidRequest,
    NotFound,
    PayloadTooLarge,
    PressrunError,
    Unauthenticated,
    UnsupportedMediaType,
)

Access = Literal["tenant", "admin", "open"]
View = Callable[..., Response]
Schema = dict[str, Any]
Answer = type[BaseModel] | str
"""A JSON shape, or what an answer without one is."""

_SECURITY: dict[Access, list[dict[str, list[Any]]]] = {
    "tenant": [{"tenantKey": []}],
    "admin": [{"adminKey": []}],
    "open": [],
}
SECURITY_SCHEMES = {
    "tenantKey": {"type": "http", "scheme": "bearer", "description": "A tenant's `pr_live_…` key"},
    "adminKey": {"type": "http", "scheme": "bearer", "description": "The administrator's key"},
}
_PROBLEM = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
_PATH_PARAMETER = re.compile(r"<(?:[^<:]+:)?(\w+)>")


def query(name: str, description: str, **schema: Any) -> Schema:
    """Documents a query parameter; keyword arguments are its JSON schema."""
    return {"name": name, "in": "query", "description": description, "schema": schema}


def header(name: str, description: str, **schema: Any) -> Schema:
    """Documents a request header."""
    return {"name": name, "in": "header", "description": description, "schema": schema}


LIMIT = query("limit", "Most items on a page", type="integer", minimum=1, maximum=100, default=20)
AFTER = query("after", "Start after the item with this id", type="string")
IDEMPOTENCY_KEY = header(
    "Idempotency-Key",
    "The same key and body again: the first answer's job, not a second one",
    type="string",
    maxLength=255,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One address and method."""

    method: Literal["get", "post", "delete"]
    rule: str
    view: View
    access: Access = "tenant"
    answers: dict[int, Answer]
    errors: tuple[type[PressrunError], ...] = ()
    parameters: tuple[Schema, ...] = ()
    body: type[BaseModel] | None = None
    body_type: str = "application/json"
    body_required: bool = True

    def register(self, blueprint: APIBlueprint, services: Services) -> None:
        decorate = getattr(blueprint, self.method)
        decorate(
            self.rule,
            endpoint=self.view.__name__,
            operation_id=self.view.__name__,
            security=_SECURITY[self.access],
            responses=self._responses(),
            openapi_extensions={"parameters": [*self._path_parameters(), *self.parameters]},
            **self._request_body(blueprint),
        )(_bind(self.view, self.access, services))

    def _request_body(self, blueprint: APIBlueprint) -> dict[str, Any]:
        if self.body is None:
            return {}
        schema = _add_schema(blueprint, self.body, mode="validation")
        content = {self.body_type: {"schema": schema}}
        return {"request_body": {"content": content, "required": self.body_required}}

    def _responses(self) -> dict[str, Any]:
        answers: dict[str, Any] = {
            str(status): {"description": answer} if isinstance(answer, str) else answer
            for status, answer in self.answers.items()
        }
        by_status: dict[int, list[str]] = {}
        for error in self._all_errors():
            by_status.setdefault(STATUS[error.code], []).append(f"`{error.code}`")
        for status, codes in sorted(by_status.items()):
            answers[str(status)] = {"description": ", ".join(codes), "content": _PROBLEM}
        answers["default"] = {"description": "Any other problem", "content": _PROBLEM}
        return answers

    def _all_errors(self) -> list[type[PressrunError]]:
        errors: list[type[PressrunError]] = [InvalidRequest]
        if self.access != "open":
            errors += [Unauthenticated, Forbidden, DatabaseUnavailable]
        if self.body is not None:
            errors += [PayloadTooLarge, UnsupportedMediaType]
        if _PATH_PARAMETER.search(self.rule):
            errors.append(NotFound)
        return list(dict.fromkeys([*errors, *self.errors]))

    def _path_parameters(self) -> list[Schema]:
        return [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
            for name in _PATH_PARAMETER.findall(self.rule)
        ]


def _add_schema(
    blueprint: APIBlueprint, model: type[BaseModel], *, mode: Literal["validation"]
) -> Schema:
    schema = model.model_json_schema(mode=mode, ref_template="#/components/schemas/{model}")
    blueprint.components_schemas.update(schema.pop("$defs", {}))
    blueprint.components_schemas[model.__name__] = schema
    return {"$ref": f"#/components/schemas/{model.__name__}"}


def _bind(view: View, access: Access, services: Services) -> Callable[[], Response]:
    auth = services.auth

    def call_for_tenant() -> Response:
        tenant_id = auth.tenant(request.headers.get("Authorization"))
        return view(services, tenant_id, **(request.view_args or {}))

    def call_for_admin() -> Response:
        auth.require_admin(request.headers.get("Authorization"))
        return view(services, **(request.view_args or {}))

    def call() -> Response:
        return view(services, **(request.view_args or {}))

    bound = {"tenant": call_for_tenant, "admin": call_for_admin, "open": call}[access]
    bound.__name__, bound.__doc__ = view.__name__, view.__doc__
    return bound


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

    def delete(self, rule: str, **entry: Any) -> Callable[[View], View]:
        return self._add("delete", rule, entry)

    def _add(
        self, method: Literal["get", "post", "delete"], rule: str, entry: dict[str, Any]
    ) -> Callable[[View], View]:
        def add(view: View) -> View:
            self.routes.append(Route(method=method, rule=rule, view=view, **entry))
            return view

        return add

    def register(self, app: OpenAPI, services: Services) -> None:
        tag = Tag(name=self.tag, description=self.description)
        blueprint = APIBlueprint(self.tag.lower(), __name__, abp_tags=[tag])
        _add_schema(blueprint, Problem, mode="validation")
        for route in self.routes:
            route.register(blueprint, services)
        app.register_api(blueprint)
