"""Pause and resume the jobs of a pool, with a page that shows the consequences."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.urls import reverse

from snakepit.pools.dashboard.confirm import Confirmation, ask
from snakepit.pools.dashboard.page import Visit, page
from snakepit.pools.dashboard.snippets import rest, shell
from snakepit.pools.models import Job
from snakepit.pools.operations import queue_orders
from snakepit.pools.operations.orders import Order


@page("pools", right="operate")
def pause_queue(request: HttpRequest, visit: Visit, name: str) -> HttpResponse:
    running = Job.objects.filter(pool=name, state="running").count()
    consequences = [
        f"Jobs of {name} wait from now on; they can still be submitted.",
        f"{running} running job{'' if running == 1 else 's'} will finish. Calls go on.",
    ]

    def action(order: Order) -> str:
        queue_orders.pause_queue(name, order)
        return f"The jobs of {name} are paused."

    lines = [*rest(request, "POST", f"pools/{name}/queue/pause", {}), shell("snakepit pause --jobs", name)]
    question = Confirmation(f"Pause the jobs of {name}?", consequences, "Pause jobs", _of_pool(name))
    return ask(request, visit, question, action, lines)


@page("pools", right="operate")
def resume_queue(request: HttpRequest, visit: Visit, name: str) -> HttpResponse:
    def action(order: Order) -> str:
        queue_orders.resume_queue(name, order)
        return f"The jobs of {name} run again."

    lines = [*rest(request, "POST", f"pools/{name}/queue/resume", {}), shell("snakepit resume --jobs", name)]
    question = Confirmation(f"Resume the jobs of {name}?", ["Jobs that wait run."], "Resume jobs", _of_pool(name))
    return ask(request, visit, question, action, lines)


def _of_pool(name: str) -> str:
    return reverse("snakepit:pool", args=[name])
