"""The home page: the pools of this node as its broker shows them now, and how to call each."""

from __future__ import annotations

import asyncio
import hmac
import json
from typing import Any

from asgiref.sync import sync_to_async
from django.conf import settings
from django.contrib.auth import get_user_model, login
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseForbidden
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET

from pools.api import door
from pools.api.errors import seen_from_outside
from pools.broker.errors import BrokerError

SAMPLES = {"integer": 10, "number": 1.0, "string": "text", "boolean": True, "array": [], "object": {}}


@never_cache
@require_GET
async def home(request: HttpRequest) -> HttpResponse:
    """The page with the first table in it; without a right to look, a way to sign in."""
    if not await _may_look(request):
        return await sync_to_async(render)(request, "snakepit/sign_in.html", {"next": request.path})
    context = await _snapshot()
    context["calls"] = await _example_calls(request, context["pools"])
    return await sync_to_async(render)(request, "snakepit/home.html", context)


@never_cache
@require_GET
async def home_live(request: HttpRequest) -> HttpResponse:
    """The table alone, which the page fetches again and again."""
    if not await _may_look(request):
        return HttpResponseForbidden("Sign in again.", content_type="text/plain")
    return await sync_to_async(render)(request, "snakepit/_pools.html", await _snapshot())


@never_cache
@require_GET
def demo_login(request: HttpRequest) -> HttpResponse:
    """One click into the demo, for whoever has the token that `snakepit up --demo` printed."""
    token = getattr(settings, "SNAKEPIT_DEMO_TOKEN", "")
    if not token:
        raise Http404("There is no demo login here.")
    if not hmac.compare_digest(request.GET.get("token", "").encode(), token.encode()):
        return HttpResponseForbidden("The token is wrong: use the link printed last.", content_type="text/plain")
    users = get_user_model()
    user, fresh = users.objects.get_or_create(username="demo", defaults={"is_staff": True, "is_superuser": True})
    if fresh:
        user.set_unusable_password()
        user.save()
    login(request, user, backend="django.contrib.auth.backends.ModelBackend")
    return redirect("home")


async def _may_look(request: HttpRequest) -> bool:
    user = await request.auser()
    return user.is_authenticated and (user.is_staff or await user.ahas_perm("snakepit_pools.view_pool"))


async def _snapshot() -> dict[str, Any]:
    try:
        snapshot = await door.broker().astatus()
    except BrokerError as error:
        return {"pools": [], "node": None, "trouble": seen_from_outside(error).message}
    pools = [{**pool, "taken": pool["slots"] - pool["free"]} for pool in snapshot["pools"]]
    return {"pools": pools, "node": snapshot["node"], "trouble": ""}


async def _example_calls(request: HttpRequest, pools: list[dict[str, Any]]) -> list[dict[str, str]]:
    """A curl line for one command of each pool: the first that needs no list or object, which nobody could guess."""
    names = [pool["name"] for pool in pools]
    found = await asyncio.gather(*(door.broker().acommands(name) for name in names), return_exceptions=True)
    root = request.build_absolute_uri(reverse("snakepit-api:api-root"))
    calls = []
    for name, commands in zip(names, found, strict=True):
        if isinstance(commands, BaseException) or not commands:
            continue
        command = next((one for one in commands if not _needs_structure(one["schema"])), commands[0])
        calls.append({"pool": name, "summary": command["summary"], "curl": curl(root, name, command)})
    return calls


def _needs_structure(schema: dict[str, Any]) -> bool:
    return any(isinstance(value, list | dict) for value in sample(schema).values())


def curl(root: str, pool: str, command: dict[str, Any]) -> str:
    """A line that a shell can run once SNAKEPIT_KEY is set."""
    body = json.dumps(sample(command["schema"])).replace("'", "'\\''")
    stream = " -N -H 'Accept: text/event-stream'" if command["streams"] else ""
    return (
        f"curl {root}pools/{pool}/commands/{command['name']}{stream} "
        f"-H \"Authorization: Bearer $SNAKEPIT_KEY\" -H 'Content-Type: application/json' -d '{body}'"
    )


def sample(schema: dict[str, Any]) -> dict[str, Any]:
    """The required arguments with a value of the right type each.

    >>> sample({"properties": {"text": {"type": "string"}, "limit": {"type": "integer"}}, "required": ["text"]})
    {'text': 'text'}
    """
    properties = schema.get("properties", {})
    return {name: _value(properties.get(name, {})) for name in schema.get("required", ())}


def _value(schema: dict[str, Any]) -> Any:
    if schema.get("examples"):
        return schema["examples"][0]
    if "enum" in schema:
        return schema["enum"][0]
    kind = schema.get("type")
    return SAMPLES.get(kind if isinstance(kind, str) else "")
