"""What the command palette (Ctrl-K) finds: pages, pools, workers, their orders, and jobs by id.

opened ─▶ everything that the broker reports, once; the script filters it while the user types
?job=  ─▶ jobs whose id begins or ends with this text
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import reverse

from snakepit.pools.dashboard.navigation import navigation
from snakepit.pools.dashboard.page import Visit, page
from snakepit.pools.dashboard.state import DashboardState
from snakepit.pools.models import Job

JOBS = 6  # found by an id
RECENT = 5000  # newest jobs that are searched by the end of an id, which has no index
SHORTEST = 4  # characters of an id
ORDERS = ("recycle", "scale", "drain", "pause")

PaletteEntry = dict[str, str]


@page("palette")
def palette(request: HttpRequest, visit: Visit) -> HttpResponse:
    """`?job=`: jobs by a part of their id; without it, everything else."""
    if (part := request.GET.get("job")) is not None:
        return JsonResponse({"entries": list(_jobs(part))})
    return JsonResponse({"entries": [*_pages(visit), *_of_state(visit.state(), visit)]})


def _pages(visit: Visit) -> Iterator[PaletteEntry]:
    for one in navigation(visit.rights, ""):
        yield _entry(str(one["title"]), "page", str(one["url"]))


def _of_state(state: DashboardState, visit: Visit) -> Iterator[PaletteEntry]:
    operates, node = visit.may("operate"), state.node
    for named in (state.cluster or state).pools:
        yield _entry(named.name, "pool", reverse("snakepit:pool", args=[named.name]))
    for one in state.all_workers:
        yield _entry(one.worker.id, "worker", reverse("snakepit:worker", args=[one.worker.id]))
    if not operates or node is None:
        return
    for pool in state.pools:
        paused = pool.state == "paused"
        for order in ("recycle", "scale", "resume") if paused else ORDERS:
            url = reverse(f"snakepit:pool-{order}", args=[pool.name])
            yield _entry(f"{order.capitalize()} {pool.name}", "order", url)
    order = "resume" if node.drain_since else "drain"
    yield _entry(f"{order.capitalize()} node {node.name}", "order", reverse(f"snakepit:node-{order}", args=[node.name]))


def _jobs(part: str) -> Iterator[PaletteEntry]:
    """Jobs by the start of an id, through its index; else by its end, among the newest jobs."""
    digits = re.sub(r"[^0-9a-f]", "", part.lower())
    if len(digits) < SHORTEST or len(digits) > 32 or not re.fullmatch(r"[0-9a-fA-F-]+", part):
        return
    first, last = uuid.UUID(digits.ljust(32, "0")), uuid.UUID(digits.ljust(32, "f"))
    found = list(Job.objects.filter(pk__gte=first, pk__lte=last).order_by("-pk").values_list("pk", flat=True)[:JOBS])
    if not found:
        recent = Job.objects.order_by("-pk").values_list("pk", flat=True)[:RECENT]
        found = [one for one in recent if one.hex.endswith(digits)][:JOBS]
    for job in Job.objects.filter(pk__in=found).order_by("-pk").only("pk", "pool", "command", "state", "run_after"):
        note = f"{job.pool}.{job.command}, {job.shown_state}"
        yield {**_entry(str(job.pk), "job", reverse("snakepit:job", args=[job.pk])), "note": note}


def _entry(title: str, kind: str, url: str) -> PaletteEntry:
    return {"title": title, "kind": kind, "url": url}
