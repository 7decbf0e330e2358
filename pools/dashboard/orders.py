"""What operators order: a page that says what will happen, then a POST that does it, with who and why.

Every order goes through `operations.orders`, as from the shell and the REST API: an audit row, and an event.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.urls import reverse

from snakepit.pools.broker.errors import BrokerError
from snakepit.pools.broker.status import RecyclePlan
from snakepit.pools.client import shared
from snakepit.pools.dashboard.confirm import Action, Confirmation, ask
from snakepit.pools.dashboard.page import Visit, page, show
from snakepit.pools.dashboard.snippets import rest, shell
from snakepit.pools.dashboard.state import DashboardState
from snakepit.pools.models import Pool
from snakepit.pools.operations import orders
from snakepit.pools.operations.orders import Change, Order
from snakepit.pools.web.actor import order_of
from snakepit.pools.web.errors import seen_from_outside

OPERATE = "operate"


def _changed(change: Callable[..., Change], words: str, *given: Any) -> Action:
    """An order that changes the pool's row."""

    def deed(order: Order) -> str:
        return f"{words} {change(shared.client(), *given, order).note}".strip()

    return deed


def _of_pool(name: str) -> str:
    return reverse("snakepit:pool", args=[name])


@page("pools", right=OPERATE)
def pause(request: HttpRequest, visit: Visit, name: str) -> HttpResponse:
    says = [f"{name} refuses new calls from now on.", _held(visit.state(), name), "Its workers stay warm."]
    lines = [*rest(request, "POST", f"pools/{name}/pause", {}), shell("snakepit pause", name)]
    deed = _changed(orders.pause, f"{name} is paused.", name)
    return ask(request, visit, Confirmation(f"Pause {name}?", says, "Pause", _of_pool(name)), deed, lines)


@page("pools", right=OPERATE)
def drain(request: HttpRequest, visit: Visit, name: str) -> HttpResponse:
    end = "When nothing runs and nothing waits, its page says drained. It stays paused until somebody resumes it."
    says = [f"{name} refuses new calls from now on.", _held(visit.state(), name), end]
    deed = _changed(orders.pause, f"{name} drains: it takes nothing new.", name)
    asked = Confirmation(f"Drain {name}?", says, "Drain", _of_pool(name))
    return ask(request, visit, asked, deed, [shell("snakepit drain", name)])


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
    size = int(text) if text.isdecimal() and len(text) < 6 else 0  # 0 is refused with the range
    says = [
        f"{name} is to have {now} worker{'' if now == 1 else 's'} now.",
        "Raised: the new ones start at once. Lowered: the surplus finishes its calls and leaves.",
        *_memory(visit.state(), name),
    ]
    lines = [*rest(request, "POST", f"pools/{name}/scale", {"size": size}), shell("snakepit scale", name, size)]
    asked = Confirmation(f"Scale {name}?", says, "Scale", _of_pool(name), size=size)
    deed = _changed(orders.scale, f"{name} is to have {size} worker{'' if size == 1 else 's'}.", name, size)
    return ask(request, visit, asked, deed, lines)


@page("pools", right=OPERATE)
def recycle(request: HttpRequest, visit: Visit, name: str) -> HttpResponse:
    says = ["Each worker is replaced by a successor that is ready first, and finishes the calls that it holds."]
    lines = [*rest(request, "POST", f"pools/{name}/recycle", {}), shell("snakepit recycle", name)]
    asked = Confirmation(f"Recycle {name}?", says, "Recycle", _of_pool(name), plan=_plan(name))
    return ask(request, visit, asked, _recycled(name, ""), lines)


@page("workers", right=OPERATE)
def recycle_worker(request: HttpRequest, visit: Visit, ident: str) -> HttpResponse:
    pool, back = _pool_of(visit.state(), ident), reverse("snakepit:worker", args=[ident])
    says = ["A successor starts first; then this worker takes nothing new, finishes what it holds, and leaves."]
    asked = Confirmation(f"Recycle {ident}?", says, "Recycle", back, plan=_plan(pool, ident))
    return ask(request, visit, asked, _recycled(pool, ident), [shell("snakepit recycle", ident)])


@page("workers", right=OPERATE)
def kill_worker(request: HttpRequest, visit: Visit, ident: str) -> HttpResponse:
    worker = visit.state().worker(ident)
    held = len(worker.calls) if worker else 0
    calls = f"{held} running call{'' if held == 1 else 's'}"
    says = [
        "Its process is ended now, without being asked; a new worker takes its place.",
        f"{calls} will fail, or run again where the command is idempotent." if held else "It runs nothing now.",
    ]
    pool, back = _pool_of(visit.state(), ident), reverse("snakepit:worker", args=[ident])
    lines = [*rest(request, "POST", f"workers/{ident}/kill", {}), shell("snakepit kill", ident)]

    def deed(order: Order) -> str:
        orders.kill(shared.client(), pool, ident, order)
        return f"{ident} is killed."

    return ask(request, visit, Confirmation(f"Kill {ident}?", says, "Kill", back, danger=True), deed, lines)


@page("workers", right=OPERATE)
def stacks(request: HttpRequest, visit: Visit, ident: str) -> HttpResponse:
    """Where a worker's threads are. GET says what it does; POST does it, because it is told as an order."""
    context: dict[str, Any] = {"ident": ident, "snippets": [shell("snakepit dump", ident)]}
    if request.method == "POST":
        pool, order = _pool_of(visit.state(), ident), order_of(request, "", "dashboard")
        try:
            context["dump"] = orders.dump(shared.client(), pool, ident, order)
        except BrokerError as error:
            context["trouble"] = seen_from_outside(error).message
    return show(request, visit, "snakepit/stacks.html", context)


def _recycled(pool: str, worker: str) -> Action:
    def deed(order: Order) -> str:
        planned = orders.recycle(shared.client(), pool, worker, order)
        return f"{planned} worker{'' if planned == 1 else 's'} will be replaced."

    return deed


def _plan(pool: str, worker: str = "") -> RecyclePlan | None:
    """What the broker says that it would do; None where it cannot be asked, which the order itself will then tell."""
    try:
        return shared.client().plan(pool, worker)
    except BrokerError:
        return None


def _pool_of(state: DashboardState, ident: str) -> str:
    worker = state.worker(ident)
    return worker.pool if worker else ident.rsplit("-", 2)[0]


def _held(state: DashboardState, name: str) -> str:
    pool = state.pool(name)
    if pool is None:
        return "Running and waiting calls will finish."
    running = sum(worker.load for worker in state.workers_of(name))
    return f"{running} running and {pool.waiting} waiting calls will finish."


def _memory(state: DashboardState, name: str) -> list[str]:
    pool = state.pool(name)
    if not pool or not pool.ready or not pool.memory_mb:
        return []
    return [f"One of its workers uses about {pool.memory_mb / pool.ready:.0f} MiB."]
