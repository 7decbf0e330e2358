"""Recycle in the admin: a confirmation page with the plan, then one order per target."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse

from snakepit.pools.admin.page import log, order
from snakepit.pools.broker.errors import BrokerError
from snakepit.pools.client import shared
from snakepit.pools.operations import pool_nodes
from snakepit.pools.web.last_status import PATIENCE, in_time

Target = tuple[Any, str, str]  # the row, the pool, and the worker ("": all workers of the pool)


def recycle(page: admin.ModelAdmin[Any], request: HttpRequest, targets: list[Target]) -> HttpResponse | None:
    """Confirm, then recycle each target. An error of one target does not stop the others."""
    if targets and request.POST.get("confirmed") != "yes":
        return _confirm(page, request, targets)
    given = order(request)
    for row, pool, worker in targets:
        try:
            done = pool_nodes.recycle(shared.client(), pool, worker, given)
        except BrokerError as error:
            page.message_user(request, f"{row}: {error.message}", messages.ERROR)
            continue
        text = f"Recycling {done.planned} worker{'' if done.planned == 1 else 's'}. Each replacement is ready first."
        text += "".join(f" {one.node}: {one.error}." for one in done.failures)
        log(request, row, f"{text} Reason: {given.reason}")
        page.message_user(request, f"{row}: {text}", messages.SUCCESS)
    return None


def _confirm(page: admin.ModelAdmin[Any], request: HttpRequest, targets: list[Target]) -> HttpResponse:
    """The page with the plan of the recycle and a field for the reason."""
    context = {
        **page.admin_site.each_context(request),
        "title": "Recycle these workers?",
        "targets": [_plan(*target) for target in targets],
        "rows": [row for row, _, _ in targets],
        "back": request.get_full_path(),
    }
    return TemplateResponse(request, "snakepit/recycle_confirm.html", context)


def _plan(row: Any, pool: str, worker: str) -> dict[str, Any]:
    try:
        with in_time():
            plans = pool_nodes.plans(shared.client(), pool, worker, PATIENCE)
    except BrokerError as error:
        return {"row": row, "error": error.message}
    known = [one.plan for one in plans if one.plan is not None]
    selected = [one for plan in known for one in plan.workers if worker in ("", one.id)]
    leaving = [one for one in selected if one.in_turn]
    busy = sum(one.load > 0 for one in leaving)
    starting = sum(one.state == "starting" for one in selected)
    counts = {"workers": len(leaving), "busy": busy, "starting": starting, "at_once": sum(one.at_once for one in known)}
    return {"row": row, **counts, "away": [one for one in plans if one.plan is None]}
