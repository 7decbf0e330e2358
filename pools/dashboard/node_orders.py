"""Drain a node for maintenance, and resume it: preview, order, and end."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.urls import reverse

from snakepit.pools.broker.errors import BrokerError
from snakepit.pools.client import shared
from snakepit.pools.client.drain_status import DrainStatus, PoolDrainStatus, drain_status
from snakepit.pools.dashboard.confirm import Confirmation, ask
from snakepit.pools.dashboard.page import Visit, page
from snakepit.pools.dashboard.snippets import rest, shell
from snakepit.pools.dashboard.state import DashboardState
from snakepit.pools.operations import node_drain
from snakepit.pools.operations.orders import Order
from snakepit.pools.web.last_status import PATIENCE


@page("nodes", right="operate")
def drain(request: HttpRequest, visit: Visit, name: str) -> HttpResponse:
    consequences = [
        f"Every pool of {name} refuses new calls from now on; its jobs wait.",
        *_in_flight(visit.state(), name),
        "Its workers stay warm. It takes calls again when an operator resumes it, or when its broker restarts.",
    ]
    lines = [*rest(request, "POST", f"nodes/{name}/drain", {}), shell("snakepit drain --node")]

    def action(order: Order) -> str:
        now = node_drain.drain(shared.client(), name, order)
        return f"{name} takes no new calls. " + (_left(now) if not now.empty else "It is empty.")

    return ask(
        request,
        visit,
        Confirmation(f"Drain node {name}?", consequences, "Drain", reverse("snakepit:nodes")),
        action,
        lines,
    )


@page("nodes", right="operate")
def resume(request: HttpRequest, visit: Visit, name: str) -> HttpResponse:
    lines = [*rest(request, "POST", f"nodes/{name}/resume", {}), shell("snakepit resume --node")]

    def action(order: Order) -> str:
        node_drain.resume(shared.client(), name, order)
        return f"{name} takes calls."

    consequences = [f"The pools of {name} take calls again; those that are paused stay so."]
    return ask(
        request,
        visit,
        Confirmation(f"Resume node {name}?", consequences, "Resume", reverse("snakepit:nodes")),
        action,
        lines,
    )


def _in_flight(state: DashboardState, name: str) -> list[str]:
    """The preview, pool by pool where there is something."""
    try:
        if state.status is not None and state.status.node.name == name:
            now = drain_status(state.status)
        else:
            now = node_drain.preview(shared.client(), name, PATIENCE)
    except BrokerError:
        return ["Running and waiting calls will finish."]
    if now.empty:
        return ["No call runs or waits: it is empty immediately."]
    return [_left(now), *(_line(pool) for pool in now.pools if pool.running or pool.waiting)]


def _line(pool: PoolDrainStatus) -> str:
    longest = f", which may take {pool.longest:.0f} s more" if pool.longest else ""
    return f"{pool.pool}: {pool.running} running{longest}, {pool.waiting} waiting"


def _left(now: DrainStatus) -> str:
    return f"{now.running} running and {now.waiting} waiting calls are finished."
