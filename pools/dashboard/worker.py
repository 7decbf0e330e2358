"""One worker: what it does now, its memory, its last lines, its life so far, and how it ended."""

from __future__ import annotations

from django.http import Http404, HttpRequest, HttpResponse

from snakepit.pools.dashboard.leaks import until
from snakepit.pools.dashboard.page import Visit, page, show
from snakepit.pools.dashboard.region import Context, region
from snakepit.pools.dashboard.snippets import rest, shell
from snakepit.pools.dashboard.state import Facts
from snakepit.pools.models import Event, Pool, Worker

LIFE = 50  # events
LIMITS = ("memory_soft_mb", "memory_hard_mb", "ttl", "max_requests")
ENDED = ("worker.died", "worker.killed", "worker.recycled")


@page("workers")
def worker(request: HttpRequest, visit: Visit, ident: str) -> HttpResponse:
    row = Worker.objects.filter(worker_id=ident).select_related("node").order_by("-pk").first()
    facts = visit.facts()
    living = facts.worker(ident)
    life = list(Event.objects.filter(worker=ident).order_by("-pk")[:LIFE])
    if row is None and living is None and not life and facts.known and not facts.events_of(worker=ident):
        raise Http404(f"No worker {ident} is known.")
    pool = living["pool"] if living else (row.pool if row else (life[0].pool if life else ident.rsplit("-", 2)[0]))
    context = {
        "ident": ident,
        "pool": pool,
        "row": row,
        "life": [] if facts.events_of(worker=ident) else life,  # the timeline has them, live
        "end": next((event for event in life if event.kind in ENDED), None),
        "limits": Pool.objects.filter(name=pool)
        .values("memory_soft_mb", "memory_hard_mb", "ttl", "max_requests")
        .first(),
        "copies": [
            *rest(request, "GET", f"workers/{ident}"),
            shell("snakepit recycle", ident),
            shell("snakepit dump", ident),
        ],
    }
    return show(request, visit, "snakepit/worker.html", context)


@region("worker", "snakepit/_worker.html")
def standing(facts: Facts, ident: str) -> Context:
    found = facts.worker(ident)
    events = facts.events_of(worker=ident)
    line = facts.rows.soft_lines.get(found["pool"]) if found else None
    return {
        "worker": found,
        "ident": ident,
        "memory": facts.memory.get(ident, []),
        "line": line,
        "until": until(found, line) if found else None,
        "pool": facts.pool(found["pool"]) if found else None,
        "age": facts.seen_at - found["started_at"] if found and found["started_at"] else None,
        "end": None if found else next((event for event in events if event["kind"] in ENDED), None),
        "output": "\n".join(found["output"]) if found and found.get("output") else "",
    }


@region("worker-events", "snakepit/_worker_events.html")
def happened(facts: Facts, ident: str) -> Context:
    return {"events": facts.events_of(worker=ident)[:LIFE]}


@region("worker-orders", "snakepit/_worker_orders.html")
def orders(facts: Facts, ident: str) -> Context:
    return {"worker": facts.worker(ident), "ident": ident}
