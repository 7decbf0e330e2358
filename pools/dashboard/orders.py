"""Orders of operators: a page that shows the consequences, then a POST that carries the order out.

Every order goes through `operations.orders`, as from the shell and the REST API: it leaves an audit row and an event.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.urls import reverse

from snakepit.pools.broker.errors import BrokerError
from snakepit.pools.client import shared
from snakepit.pools.dashboard.confirm import Action, Confirmation, ask
from snakepit.pools.dashboard.page import Visit, page, show
from snakepit.pools.dashboard.snippets import rest, shell
from snakepit.pools.dashboard.state import DashboardState
from snakepit.pools.models import Pool
from snakepit.pools.operations import orders, pool_nodes
from snakepit.pools.operations.orders import Change, Order
from snakepit.pools.operations.pool_nodes import NodePlan
from snakepit.pools.web import scale as web_scale
from snakepit.pools.web.actor import order_of
from snakepit.pools.web.errors import seen_from_outside
from snakepit.pools.web.last_status import PATIENCE

OPERATE = "operate"


def _changed(change: Callable[..., Change], words: str, *given: Any) -> Action:
    """An order that changes the pool's row."""

    def action(order: Order) -> str:
        return f"{words} {change(shared.client(), *given, order).note}".strip()

    return action


def _of_pool(name: str) -> str:
    return reverse("snakepit:pool", args=[name])


@page("pools", right=OPERATE)
def pause(request: HttpRequest, visit: Visit, name: str) -> HttpResponse:
    consequences = [
        f"{name} refuses new calls from now on.",
        _in_flight(visit.state(), name),
        "Its workers stay warm.",
    ]
    lines = [*rest(request, "POST", f"pools/{name}/pause", {}), shell("snakepit pause", name)]
    action = _changed(orders.pause, f"{name} is paused.", name)
    return ask(request, visit, Confirmation(f"Pause {name}?", consequences, "Pause", _of_pool(name)), action, lines)


@page("pools", right=OPERATE)
def drain(request: HttpRequest, visit: Visit, name: str) -> HttpResponse:
    end = "When nothing runs and nothing waits, its page says drained. It stays paused until an operator resumes it."
    consequences = [f"{name} refuses new calls from now on.", _in_flight(visit.state(), name), end]
    action = _changed(orders.pause, f"{name} drains: it takes no new calls.", name)
    asked = Confirmation(f"Drain {name}?", consequences, "Drain", _of_pool(name))
    return ask(request, visit, asked, action, [shell("snakepit drain", name)])


@page("pools", right=OPERATE)
def resume(request: HttpRequest, visit: Visit, name: str) -> HttpResponse:
    lines = [*rest(request, "POST", f"pools/{name}/resume", {}), shell("snakepit resume", name)]
    asked = Confirmation(f"Resume {name}?", [f"{name} takes calls again."], "Resume", _of_pool(name))
    return ask(request, visit, asked, _changed(orders.resume, f"{name} takes calls.", name), lines)


@page("pools", right=OPERATE)
def scale(request: HttpRequest, visit: Visit, name: str) -> HttpResponse:
    row = Pool.objects.filter(name=name).first()
    now = row.size if row else 0
    text = request.POST.get("size") or request.GET.get("size") or str(now)
    size = int(text) if text.isdecimal() and len(text) < 6 else 0  # 0 is refused, with the valid range
    consequences = [
        f"{name} has {now} worker{'' if now == 1 else 's'} in its definition now.",
        "More: new workers start immediately. Fewer: the surplus workers finish their calls and leave.",
        *_memory(visit.state(), name),
    ]
    lines = [*rest(request, "POST", f"pools/{name}/scale", {"size": size}), shell("snakepit scale", name, size)]
    asked = Confirmation(f"Scale {name}?", consequences, "Scale", _of_pool(name), size=size)

    def action(order: Order) -> str:
        done = web_scale.scale(name, size, order)
        return f"{name} is to have {size} worker{'' if size == 1 else 's'}. {done.note}".strip()

    return ask(request, visit, asked, action, lines)


@page("pools", right=OPERATE)
def recycle(request: HttpRequest, visit: Visit, name: str) -> HttpResponse:
    consequences = ["Each worker is replaced: its successor is ready first, and it finishes the calls that it holds."]
    lines = [*rest(request, "POST", f"pools/{name}/recycle", {}), shell("snakepit recycle", name)]
    asked = Confirmation(f"Recycle {name}?", consequences, "Recycle", _of_pool(name), plans=_plans(visit, name))
    return ask(request, visit, asked, _recycled(name, ""), lines)


@page("workers", right=OPERATE)
def recycle_worker(request: HttpRequest, visit: Visit, ident: str) -> HttpResponse:
    pool, back = _pool_of(visit.state(), ident), reverse("snakepit:worker", args=[ident])
    consequences = ["A successor starts first. Then this worker takes no new calls, finishes its calls, and leaves."]
    asked = Confirmation(f"Recycle {ident}?", consequences, "Recycle", back, plans=_plans(visit, pool, ident))
    return ask(request, visit, asked, _recycled(pool, ident), [shell("snakepit recycle", ident)])


@page("workers", right=OPERATE)
def kill_worker(request: HttpRequest, visit: Visit, ident: str) -> HttpResponse:
    found = visit.state().find_worker(ident)
    running = len(found.worker.calls) if found else 0
    calls = f"{running} running call{'' if running == 1 else 's'}"
    consequences = [
        "Its process is killed now; a new worker takes its place.",
        f"{calls} will fail, or run again where the command is idempotent." if running else "It runs nothing now.",
    ]
    pool, back = _pool_of(visit.state(), ident), reverse("snakepit:worker", args=[ident])
    lines = [*rest(request, "POST", f"workers/{ident}/kill", {}), shell("snakepit kill", ident)]

    def action(order: Order) -> str:
        pool_nodes.kill(shared.client(), pool, ident, order)
        return f"{ident} is killed."

    return ask(request, visit, Confirmation(f"Kill {ident}?", consequences, "Kill", back, danger=True), action, lines)


@page("workers", right=OPERATE)
def stacks(request: HttpRequest, visit: Visit, ident: str) -> HttpResponse:
    """The stacks of a worker's threads. GET explains it; POST does it, because it is recorded as an order."""
    context: dict[str, Any] = {"ident": ident, "snippets": [shell("snakepit dump", ident)]}
    if request.method == "POST":
        pool, order = _pool_of(visit.state(), ident), order_of(request, "", "dashboard")
        try:
            context["dump"] = pool_nodes.dump(shared.client(), pool, ident, order)
        except BrokerError as error:
            context["trouble"] = seen_from_outside(error).message
    return show(request, visit, "snakepit/stacks.html", context)


def _recycled(pool: str, worker: str) -> Action:
    def action(order: Order) -> str:
        done = pool_nodes.recycle(shared.client(), pool, worker, order)
        text = f"{done.planned} worker{'' if done.planned == 1 else 's'} will be replaced."
        if len(done.nodes) > 1:
            answers = (f"{one.node}: {one.error or one.planned}" for one in done.nodes)
            text += f" By node: {'; '.join(answers)}."
        return text

    return action


def _plans(visit: Visit, pool: str, worker: str = "") -> Sequence[NodePlan]:
    """The plan of each node that the order reaches; none if no broker can be asked. The order then shows the reason."""
    if visit.state().stale:
        return ()
    try:
        return pool_nodes.plans(shared.client(), pool, worker, PATIENCE)
    except BrokerError:
        return ()


def _pool_of(state: DashboardState, ident: str) -> str:
    found = state.find_worker(ident)
    return found.worker.pool if found else ident.rsplit("-", 2)[0]


def _in_flight(state: DashboardState, name: str) -> str:
    pool = state.totals_of(name)
    if pool is None:
        return "Running and waiting calls will finish."
    running = sum(one.worker.load for one in state.all_workers if one.worker.pool == name)
    return f"{running} running and {pool.waiting} waiting calls will finish."


def _memory(state: DashboardState, name: str) -> list[str]:
    pool = state.totals_of(name)
    measured = pool and pool.ready and pool.memory_mb
    uses = f"One of its workers uses about {pool.memory_mb / pool.ready:.0f} MiB." if pool and measured else ""
    holds = web_scale.room(state.status, name) if state.status and not state.stale else ""
    return [text for text in (uses, holds) if text]
