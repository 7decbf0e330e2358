"""The REST API: its routers, authentication and error handlers."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.urls import URLPattern, URLResolver, path, re_path
from ninja import NinjaAPI
from ninja.openapi.schema import OpenAPISchema

from snakepit.pools import conf
from snakepit.pools.api import (
    calls,
    definitions,
    diagnostics,
    errors,
    health,
    job_bulk,
    job_lists,
    jobs,
    keys,
    node_drain,
    observed,
    operate,
    periodic,
    workflows,
)
from snakepit.pools.api.auth import BrowserAuth, KeyAuth
from snakepit.pools.api.bounds import NAMES
from snakepit.pools.api.calls import json_response
from snakepit.pools.api.examples import add_example
from snakepit.pools.api.query import refuse_unknown_parameters
from snakepit.pools.web.greenlets import refuse_asynchronous
from snakepit.pools.web.transactions import independent_patterns


def _version() -> str:
    try:
        return version("django-snakepit")
    except PackageNotFoundError:
        return "0"


REFUSED = {
    "description": "Bad Request",
    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Failure"}}},
}


class SnakepitAPI(NinjaAPI):
    """An API whose description has examples of bodies, and the bounds of numbers and names; settings give some."""

    def get_openapi_schema(self, *args: Any, **options: Any) -> OpenAPISchema:
        schema = super().get_openapi_schema(*args, **options)
        settings = conf.current()
        ranges = {
            "limit": {"minimum": 1, "maximum": settings.page_limit},
            "timeout": {"maximum": settings.max_timeout},
        }
        for methods in schema["paths"].values():
            for operation in methods.values():
                operation["responses"].setdefault(400, REFUSED)  # a query parameter that it does not have
                add_example(operation)
                for parameter in operation.get("parameters", ()):
                    name, described = parameter["name"], parameter["schema"]
                    for form in described.get("anyOf", [described]):
                        if form.get("type") in ("integer", "number"):
                            form.update(ranges.get(name, {}))
                    if name in NAMES and described.get("type") == "string":
                        described.setdefault("maxLength", NAMES[name])
        return schema


api = SnakepitAPI(
    title="Snakepit",
    version=_version(),
    description="Pools of warm Python workers: call their commands, see their state. "
    "Authenticate with an API key (`Authorization: Bearer snk_...`) or a signed-in session. "
    "A query parameter that an operation does not list is refused with 400 `bad_request`.",
    urls_namespace="snakepit-api",
    auth=[KeyAuth(), BrowserAuth()],
    docs_url="/docs",
)
errors.register(api)
refuse_unknown_parameters(api)
for router in (
    calls.router,
    job_lists.router,
    job_bulk.router,  # before the routes of one job, whose id it would take for a name
    jobs.router,
    periodic.router,
    definitions.router,  # with those of the module pools
    operate.router,
    node_drain.router,
    observed.router,
    diagnostics.router,
    health.router,
    keys.router,
    workflows.router,
):
    api.add_router("", router)


def root(request: HttpRequest) -> HttpResponse:
    at = request.path
    links = {"docs": f"{at}docs", "openapi": f"{at}openapi.json"}
    return json_response({"name": "Snakepit", "version": api.version, **links})


def urlpatterns() -> list[URLPattern | URLResolver]:
    """All URLs under the API's root. Unknown paths get an error in the API's format."""
    patterns, *_ = api.urls
    index = path("", root, name="api-root")
    unknown = re_path(r"^(?P<path>.*)$", errors.not_found)
    return independent_patterns(refuse_asynchronous(errors.with_error_format([index, *patterns, unknown])))
