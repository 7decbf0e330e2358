"""One worker: its present calls, memory, output, events, and how it ended."""

from __future__ import annotations

from django.http import Http404, HttpRequest, HttpResponse

from snakepit.pools.dashboard.leaks import seconds_to
from snakepit.pools.dashboard.page import Visit, page, show
from snakepit.pools.dashboard.region import Context, region
from snakepit.pools.dashboard.snippets import order, rest, shell
from snakepit.pools.dashboard.state import DashboardState
from snakepit.pools.models import Event, Pool, Worker

LIFE = 50  # events
LIMITS = ("memory_soft_mb", "memory_hard_mb", "ttl", "max_requests")
ENDED = ("worker.died", "worker.killed", "worker.recycled")


@page("workers")
def worker(request: HttpRequest, visit: Visit, ident: str) -> HttpResponse:
    row = Worker.objects.filter(worker_id=ident).select_related("node").order_by("-pk").first()
    state = visit.state()
    found = state.find_worker(ident)
    living = found.worker if found else None
    life = list(Event.objects.filter(worker=ident).order_by("-pk")[:LIFE])
    if row is None and living is None and not life and state.shown and not state.events_of(worker=ident):
        raise Http404(f"No worker {ident} is known.")
    pool = living.pool if living else (row.pool if row else (life[0].pool if life else ident.rsplit("-", 2)[0]))
    context = {
        "ident": ident,
        "pool": pool,
        "row": row,
        "life": [] if state.events_of(worker=ident) else life,  # the live events have them
        "end": next((event for event in life if event.kind in ENDED), None),
        "limits": Pool.objects.filter(name=pool)
        .values("memory_soft_mb", "memory_hard_mb", "ttl", "max_requests")
        .first(),
        "snippets": [
            *rest(request, "GET", f"workers/{ident}"),
            shell("snakepit dump", ident),
            order("snakepit recycle", ident),
        ],
    }
    return show(request, visit, "snakepit/worker.html", context)


@region("worker", "snakepit/_worker.html")
def overview(state: DashboardState, ident: str) -> Context:
    living = state.find_worker(ident)
    if living is None:
        end = next((event for event in state.events_of(worker=ident) if event.kind in ENDED), None)
        return {"worker": None, "ident": ident, "end": end, "away": state.cluster.away if state.cluster else ()}
    found = living.worker
    limit = state.stored.soft_limits.get(found.pool)
    host = state.hosts_of(found.pool).get(living.node)
    return {
        "worker": found,
        "node": living.node if state.cluster else "",
        "ident": ident,
        "memory": state.memory.get(ident, []),
        "limit": limit,
        "until": seconds_to(limit, found),
        "pool": host.pool(found.pool) if host else None,
        "age": max(0.0, state.at - found.started_at) if found.started_at else None,
        "output": "\n".join(found.output),
    }


@region("worker-events", "snakepit/_worker_events.html")
def happened(state: DashboardState, ident: str) -> Context:
    return {"events": state.events_of(worker=ident)[:LIFE]}


@region("worker-orders", "snakepit/_worker_orders.html")
def orders(state: DashboardState, ident: str) -> Context:
    return {"worker": state.find_worker(ident), "ident": ident}
