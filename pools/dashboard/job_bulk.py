"""Cancel, retry or delete all jobs that the filters of the list match: the confirmation page shows how many."""

from __future__ import annotations

import shlex
import uuid
from urllib.parse import urlencode

from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse

from snakepit.pools.broker.errors import BadRequest
from snakepit.pools.dashboard.confirm import Confirmation, ask
from snakepit.pools.dashboard.jobs import FILTERS, filtered
from snakepit.pools.dashboard.page import Visit, forbid, page, show
from snakepit.pools.dashboard.snippets import order as order_line
from snakepit.pools.jobs import bulk_actions
from snakepit.pools.models.job import JobQuerySet
from snakepit.pools.operations import job_orders
from snakepit.pools.operations.orders import Order

SECONDS = 10.0  # a request works no longer; the message then says that jobs are left
THEN = {
    "cancel": "Jobs that wait end immediately. Jobs that run are asked to stop.",
    "retry": "They are queued again with a new budget of attempts. Their earlier events are deleted.",
    "delete": "Their rows, attempts and output are deleted. This cannot be undone.",
}


@page("jobs")
def act(request: HttpRequest, visit: Visit, action: str) -> HttpResponse:
    """Show how many jobs would change, then change them. A user without `jobs` changes only own jobs."""
    if not {"jobs", "run"} & visit.rights:
        return forbid(request, visit, "jobs")
    given = {name: request.GET.get(name, "").strip() for name in FILTERS}
    try:
        rows = _changeable(request, visit, filtered(request, visit, given))
        upto = uuid.UUID(request.GET["upto"]) if "upto" in request.GET else None
        found = bulk_actions.preview(action, rows if upto is None else rows.filter(pk__lte=upto))
    except (BadRequest, ValueError) as error:
        return show(request, visit, "snakepit/missing.html", {"what": str(error)}, status=400)
    wanted = {name: value for name, value in given.items() if value}
    if upto is None and found.upto is not None:  # the page that asks and its form name the same jobs
        return redirect(f"{request.path}?{urlencode({**wanted, 'upto': found.upto})}")

    def carry_out(order: Order) -> str:
        done = job_orders.act(action, rows, wanted, order, upto=upto, seconds=SECONDS)
        left = " There are more: repeat the action." if done.left else ""
        return f"{done.done:,} jobs {job_orders.DONE[action]}.{left}"

    back = reverse("snakepit:jobs") + (f"?{urlencode(wanted)}" if wanted else "")
    question = _question(action, found, wanted, own="jobs" not in visit.rights)
    return ask(request, visit, Confirmation(*question, back, action != "retry"), carry_out, _snippets(action, wanted))


def _changeable(request: HttpRequest, visit: Visit, rows: JobQuerySet) -> JobQuerySet:
    return rows if "jobs" in visit.rights else rows.filter(owner=request.user.get_username())


def _question(
    action: str, found: bulk_actions.Preview, given: dict[str, str], own: bool
) -> tuple[str, tuple[str, ...], str]:
    count = f"{found.count:,}{'+' if found.more else ''} {'job' if found.count == 1 else 'jobs'}"
    filters = ", ".join(f"{name} {value}" for name, value in given.items()) or "no filter: all jobs"
    sample = ", ".join(f"{job.pool}.{job.command} {str(job.pk)[-12:]}" for job in found.sample[:5])
    sentences = (
        f"{count} match: {filters}.",
        THEN[action],
        *(("Only your own jobs: other jobs need the permission snakepit_pools.manage_job.",) if own else ()),
        *((f"The newest: {sample}.",) if sample else ()),
        "Jobs that are submitted from now on stay as they are.",
    )
    return f"{action.capitalize()} {count}?", sentences, f"{action.capitalize()} {count}"


def _snippets(action: str, given: dict[str, str]) -> list[dict[str, str]]:
    options = " ".join(f"--{name} {shlex.quote(value)}" for name, value in given.items() if name != "span")
    return [order_line(f"snakepit jobs {action} {options or '--all'} --dry-run")]
