"""Periodic jobs: their schedules with the next and the last runs; run now, pause and resume."""

from __future__ import annotations

from typing import Any
from zoneinfo import ZoneInfo

from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import NoReverseMatch, reverse

from snakepit.pools.broker.errors import PeriodicUnknown
from snakepit.pools.dashboard.confirm import Confirmation, ask
from snakepit.pools.dashboard.page import Visit, page, show
from snakepit.pools.dashboard.snippets import rest, shell
from snakepit.pools.models import PeriodicJob
from snakepit.pools.operations import periodic_orders
from snakepit.pools.operations.orders import Order

NEXT = 3  # runs of a row
ROWS = 500
QUESTIONS = {
    "run": ("Run {} now?", "Its job is submitted once, beside the schedule.", "Run now"),
    "pause": (
        "Pause {}?",
        "It submits nothing until a resume. Times that pass meanwhile are not missed runs.",
        "Pause",
    ),
    "resume": ("Resume {}?", "It goes on with the next time of its schedule.", "Resume"),
}


@page("periodic")
def periodic(request: HttpRequest, visit: Visit) -> HttpResponse:
    rows = [_described(row) for row in PeriodicJob.objects.all()[:ROWS]]
    snippets = [*rest(request, "GET", "periodic"), shell("snakepit periodic list")]
    context = {"rows": rows, "snippets": snippets, "add": _admin("add"), "may": visit.may("operate")}
    return show(request, visit, "snakepit/periodic.html", context)


def _described(row: PeriodicJob) -> dict[str, Any]:
    zone = ZoneInfo(row.time_zone)
    runs = [(moment, moment.astimezone(zone).strftime("%a %d %b, %H:%M %Z")) for moment in row.next_runs(NEXT)]
    return {"row": row, "next": runs, "admin": _admin("change", row.pk), "state": "ready" if row.enabled else "paused"}


def _admin(what: str, *of: Any) -> str:
    try:
        return reverse(f"admin:snakepit_pools_periodicjob_{what}", args=of)
    except NoReverseMatch:  # a project without the admin
        return ""


@page("periodic", right="operate")
def act(request: HttpRequest, visit: Visit, name: str, action: str) -> HttpResponse:
    try:
        row = periodic_orders.find(name)
    except PeriodicUnknown as error:
        raise Http404(error.message) from None
    title, consequence, button = QUESTIONS[action]
    what = f"{row.pool}.{row.command}, {row.schedule}."

    def carry_out(order: Order) -> str | HttpResponse:
        if action == "run":
            return redirect("snakepit:job", periodic_orders.run(name, order).pk)
        (periodic_orders.pause if action == "pause" else periodic_orders.resume)(name, order)
        return f"{name} is {'paused' if action == 'pause' else 'resumed'}."

    lines = [*rest(request, "POST", f"periodic/{name}/{action}", {}), shell(f"snakepit periodic {action}", name)]
    question = Confirmation(title.format(name), [what, consequence], button, reverse("snakepit:periodic"))
    return ask(request, visit, question, carry_out, lines)
