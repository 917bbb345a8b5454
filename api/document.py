"""The OpenAPI document, made of the route tables when somebody asks for it.

flask-openapi writes it from an application of its own, which serves nothing: building the schemas
takes as long as all else at the start of the API, and few processes are ever asked.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Literal

from flask_openapi.blueprint import APIBlueprint
from flask_openapi.models.info import Info
from flask_openapi.models.tag import Tag
from flask_openapi.openapi import OpenAPI
from pydantic import BaseModel

from api.errors import STATUS
from api.objects import Problem
from api.routing import Access, Route, RouteTable, Schema
from shared.errors import (
    BudgetExceeded,
    DatabaseUnavailable,
    Forbidden,
    InvalidRequest,
    NotFound,
    PayloadTooLarge,
    PressrunError,
    QuotaExceeded,
    RateLimitExceeded,
    TenantDisabled,
    Unauthenticated,
    UnsupportedMediaType,
)
from shared.version import VERSION

_DESCRIPTION = (
    "Submit jobs, batches and campaigns of generation, follow them, fetch their results; or call "
    "and wait. Fine-tune models and ask them by name. Files, batches, fine-tuning jobs, models, "
    "text, images, speech and videos speak OpenAI's wire format. "
    "Every problem is `application/problem+json` with an "
    "`error` member that OpenAI's SDKs read; every response carries `x-request-id`."
)
_SECURITY: dict[Access, list[dict[str, list[Any]]]] = {
    "tenant": [{"tenantKey": []}],
    "admin": [{"adminKey": []}],
    "open": [],
}
_SECURITY_SCHEMES: dict[str, Any] = {
    "tenantKey": {"type": "http", "scheme": "bearer", "description": "A tenant's `pr_live_…` key"},
    "adminKey": {"type": "http", "scheme": "bearer", "description": "The administrator's key"},
}
_PROBLEM = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
_PATH_PARAMETER = re.compile(r"<(?:[^<:]+:)?(\w+)>")


def openapi_document(tables: Iterable[RouteTable]) -> dict[str, Any]:
    """OpenAPI 3.1 for every route of ``tables``."""
    app = OpenAPI(
        __name__,
        info=Info(title="Pressrun", version=VERSION, description=_DESCRIPTION),
        security_schemes=_SECURITY_SCHEMES,
        # Views validate by themselves; these keep the library's own 422 out of the document.
        validation_error_status=400,
        validation_error_model=Problem,
        doc_ui=False,
        static_folder=None,
    )
    app.openapi_version = "3.1.0"
    for table in tables:
        tag = Tag(name=table.tag, description=table.description)
        blueprint = APIBlueprint(table.tag.lower(), __name__, abp_tags=[tag])
        _add_schema(blueprint, Problem, mode="validation")
        for route in table.routes:
            _describe(blueprint, route)
        app.register_api(blueprint)
    return dict(app.api_doc)


def _describe(blueprint: APIBlueprint, route: Route) -> None:
    decorate = getattr(blueprint, route.method)
    decorate(
        route.rule,
        endpoint=route.view.__name__,
        operation_id=route.view.__name__,
        security=_SECURITY[route.access],
        responses=_responses(blueprint, route),
        openapi_extensions={"parameters": [*_path_parameters(route), *route.parameters]},
        **_request_body(blueprint, route),
    )(_silent(route))


def _silent(route: Route) -> Any:
    """Stands for the view, whose arguments the library would take for request models."""

    def view() -> None: ...

    view.__name__, view.__doc__ = route.view.__name__, route.view.__doc__
    return view


def _request_body(blueprint: APIBlueprint, route: Route) -> dict[str, Any]:
    if route.body is None:
        return {}
    schema = _add_schema(blueprint, route.body, mode="validation")
    content = {body_type: {"schema": schema} for body_type in route.body_types}
    return {"request_body": {"content": content, "required": route.body_required}}


def _responses(blueprint: APIBlueprint, route: Route) -> dict[str, Any]:
    answers: dict[str, Any] = {
        str(status): {"description": answer} if isinstance(answer, str) else answer.resolve()
        for status, answer in route.answers.items()
    }
    answered = answers.get("200")
    if route.streams and isinstance(answered, type):
        answers["200"] = {
            "description": "As JSON or, where it is asked for, as Server-Sent Events",
            "content": {
                "application/json": {"schema": _add_schema(blueprint, answered, mode="validation")},
                "text/event-stream": {"schema": {"type": "string"}},
            },
        }
    by_status: dict[int, list[str]] = {}
    for error in _all_errors(route):
        by_status.setdefault(STATUS[error.code], []).append(f"`{error.code}`")
    for status, code in route.refusals.items():
        by_status.setdefault(status, []).append(f"`{code}`")
    for status, codes in sorted(by_status.items()):
        answers[str(status)] = {"description": ", ".join(codes), "content": _PROBLEM}
    answers["default"] = {"description": "Any other problem", "content": _PROBLEM}
    return answers


def _all_errors(route: Route) -> list[type[PressrunError]]:
    errors: list[type[PressrunError]] = [InvalidRequest]
    if route.access != "open":
        errors += [Unauthenticated, Forbidden, DatabaseUnavailable]
    if route.access == "tenant":
        errors += [TenantDisabled, RateLimitExceeded]
        if route.method in {"post", "put"}:
            errors += [QuotaExceeded, BudgetExceeded]
    if route.body is not None:
        errors += [PayloadTooLarge, UnsupportedMediaType]
    if _PATH_PARAMETER.search(route.rule):
        errors.append(NotFound)
    return list(dict.fromkeys([*errors, *route.errors]))


def _path_parameters(route: Route) -> list[Schema]:
    return [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in _PATH_PARAMETER.findall(route.rule)
    ]


def _add_schema(
    blueprint: APIBlueprint, model: type[BaseModel], *, mode: Literal["validation"]
) -> Schema:
    schema = model.model_json_schema(mode=mode, ref_template="#/components/schemas/{model}")
    blueprint.components_schemas.update(schema.pop("$defs", {}))
    blueprint.components_schemas[model.__name__] = schema
    return {"$ref": f"#/components/schemas/{model.__name__}"}
