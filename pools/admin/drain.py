"""Drain and resume nodes in the admin: a confirmation page with their calls, then one order per node."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse

from snakepit.pools.admin.page import log, order
from snakepit.pools.broker.errors import BrokerError
from snakepit.pools.client import shared
from snakepit.pools.models import Node
from snakepit.pools.operations import node_drain
from snakepit.pools.web.last_status import PATIENCE


def drain(page: admin.ModelAdmin[Any], request: HttpRequest, nodes: list[Node]) -> HttpResponse | None:
    """Confirm, then drain each node. An error of one node does not stop the others."""
    if request.POST.get("confirmed") != "yes":
        context = {
            **page.admin_site.each_context(request),
            "title": "Drain these nodes?",
            "targets": [_status(node) for node in nodes],
            "rows": nodes,
            "back": request.get_full_path(),
        }
        return TemplateResponse(request, "snakepit/drain_confirm.html", context)
    for node in nodes:
        _order(page, request, node, "drain")
    return None


def resume(page: admin.ModelAdmin[Any], request: HttpRequest, nodes: list[Node]) -> None:
    for node in nodes:
        _order(page, request, node, "resume")


def _order(page: admin.ModelAdmin[Any], request: HttpRequest, node: Node, action: str) -> None:
    given = order(request)
    try:
        now = (node_drain.drain if action == "drain" else node_drain.resume)(shared.client(), node.name, given)
    except BrokerError as error:
        page.message_user(request, f"{node}: {error.message}", messages.ERROR)
        return
    text = "Takes calls again."
    if action == "drain":
        text = f"Refuses new calls; {now.running} running and {now.waiting} waiting calls finish."
    log(request, node, f"{text} Reason: {given.reason}")
    page.message_user(request, f"{node}: {text}", messages.SUCCESS)


def _status(node: Node) -> dict[str, Any]:
    try:
        now = node_drain.preview(shared.client(), node.name, PATIENCE)
    except BrokerError as error:
        return {"row": node, "error": error.message}
    return {"row": node, "drain": now, "longest": max((pool.longest for pool in now.pools), default=0.0)}
