"""Recycle in the admin: ask first, with what it would do; then order it, target by target."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse

from snakepit.pools.admin.page import log, order
from snakepit.pools.broker.errors import BrokerError
from snakepit.pools.client import shared
from snakepit.pools.operations import orders

Target = tuple[Any, str, str]  # a row, the pool, the worker or nothing


def recycle(page: admin.ModelAdmin, request: HttpRequest, targets: list[Target]) -> HttpResponse | None:
    """A refusal of one target does not stop the others."""
    if targets and request.POST.get("confirmed") != "yes":
        return _ask(page, request, targets)
    given = order(request)
    for row, pool, worker in targets:
        try:
            planned = orders.recycle(shared.client(), pool, worker, given)
        except BrokerError as error:
            page.message_user(request, f"{row}: {error.message}", messages.ERROR)
            continue
        text = f"Recycle ordered: {planned} to be replaced, each by a successor that is ready first."
        log(request, row, f"{text} Why: {given.reason}")
        page.message_user(request, f"{row}: {text}", messages.SUCCESS)
    return None


def _ask(page: admin.ModelAdmin, request: HttpRequest, targets: list[Target]) -> HttpResponse:
    """The page that says what a recycle would do, and asks why."""
    context = {
        **page.admin_site.each_context(request),
        "title": "Recycle these workers?",
        "targets": [_foresee(*target) for target in targets],
        "rows": [row for row, _, _ in targets],
        "back": request.get_full_path(),
    }
    return TemplateResponse(request, "snakepit/recycle_confirm.html", context)


def _foresee(row: Any, pool: str, worker: str) -> dict[str, Any]:
    try:
        plan = shared.client().plan(pool, worker)
    except BrokerError as error:
        return {"row": row, "error": error.message}
    meant = [one for one in plan["workers"] if worker in ("", one["id"])]
    leaving = [one for one in meant if one["in_turn"]]
    busy = sum(one["load"] > 0 for one in leaving)
    starting = sum(one["state"] == "starting" for one in meant)
    return {"row": row, "workers": len(leaving), "busy": busy, "starting": starting, "at_once": plan["at_once"]}
