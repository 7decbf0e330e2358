"""One job: its timeline, events, arguments and result; cancel, retry, clone."""

from __future__ import annotations

import json
import uuid
from typing import Any

from asgiref.sync import sync_to_async
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import redirect
from django.urls import reverse
from django.views.decorators.http import require_GET

from snakepit.pools import jobs as durable
from snakepit.pools.api.body import dumps
from snakepit.pools.api.job_events import position, stream
from snakepit.pools.api.jobs import out
from snakepit.pools.broker.caller import acting_for
from snakepit.pools.broker.errors import BadRequest
from snakepit.pools.dashboard.access import Rights, rights_of
from snakepit.pools.dashboard.confirm import Confirmation, ask
from snakepit.pools.dashboard.jobs import described
from snakepit.pools.dashboard.page import Visit, forbid, page, show
from snakepit.pools.dashboard.snippets import api_url, curl, line
from snakepit.pools.dashboard.timeline import timeline
from snakepit.pools.jobs import waiting
from snakepit.pools.jobs.leases import db_unit
from snakepit.pools.jobs.privacy import hide_payload
from snakepit.pools.models import Job
from snakepit.pools.models.apikey import quota_of
from snakepit.pools.models.states import UNSUCCESSFUL
from snakepit.pools.operations import orders
from snakepit.pools.operations.orders import Order

SHOWN = 50_000  # characters of a payload on the page; the rest is in the file
TRIES = 50  # attempts on the page
RELATED = 6
LINKED = 12  # predecessors and successors


@page("jobs")
def job(request: HttpRequest, visit: Visit, ident: uuid.UUID) -> HttpResponse:
    """The page, or for its script only the part that changes while the job lives."""
    row = _find(ident)
    alone = request.GET.get("part") == "now"
    may = _may(request, visit.rights, row)
    waiting.explain(row)
    tries = list(row.tries.order_by("-number")[:TRIES])
    if not may["see"]:
        hide_payload(row, tries)
    context: dict[str, Any] = {"job": described(row), "row": row, "may": may, "ended": row.ended}
    context |= {"timeline": timeline(row, list(reversed(tries))), "cut": max(0, row.attempts - TRIES)}
    context |= {"error": row.error, "before": _linked(row.edges_in, "needs"), "after": _linked(row.edges_out, "job")}
    if may["see"]:
        context["arguments"] = _shown(row.arguments)
        context["result"] = _shown(row.value) if row.state == "succeeded" else None
    if not alone:
        related = (
            Job.objects.filter(command=row.command)
            .exclude(pk=row.pk)
            .only("pk", "state", "run_after", "pool", "created_at")
        )
        context["related"] = list(related.order_by("-pk")[:RELATED])
        context["snippets"] = _snippets(request, row)
    return show(request, visit, "snakepit/_job.html" if alone else "snakepit/job.html", context)


def _linked(edges: Any, end: str) -> dict[str, Any]:
    """The jobs at the other end of the edges of a job, the first LINKED of them."""
    ids = list(edges.order_by().values_list(f"{end}_id", flat=True).distinct()[: LINKED + 1])
    rows = Job.objects.filter(pk__in=ids[:LINKED]).only("pk", "pool", "command", "state", "run_after").order_by("pk")
    return {"rows": list(rows), "more": len(ids) > LINKED}


def _find(ident: uuid.UUID | str) -> Job:
    row = Job.objects.filter(pk=ident).first()
    if row is None:
        raise Http404("There is no such job; it may have been deleted after its retention.")
    return row


def _may(request: HttpRequest, rights: Rights, row: Job) -> dict[str, bool]:
    """What this user may do to this job: `run` allows it for own jobs, `jobs` for all."""
    mine = row.owner == request.user.get_username() and "run" in rights
    manages, sees = mine or "jobs" in rights, mine or "payload" in rights
    return {
        "see": sees,
        "cancel": manages and not row.ended and not row.cancel_requested,
        "retry": manages and row.state in UNSUCCESSFUL,
        "clone": sees and "run" in rights,
        "manage": manages,
    }


def _shown(value: Any) -> dict[str, Any]:
    """A value as indented JSON, cut where the page would become too long."""
    if isinstance(value, bytes):
        return {"bytes": len(value), "text": "", "cut": False}
    text = json.dumps(json.loads(dumps(value)), indent=2, ensure_ascii=False)
    return {"bytes": None, "text": text[:SHOWN], "cut": len(text) > SHOWN, "size": len(text)}


QUESTIONS = {
    "cancel": ("Cancel this job?", "Cancel the job", True),
    "retry": ("Run this job again?", "Queue it again", False),
    "clone": ("Submit the same again?", "Submit a new job", False),
}


@page("jobs")
def act(request: HttpRequest, visit: Visit, ident: str, action: str) -> HttpResponse:
    """Confirm, then act. A user without the right is refused before the page shows anything."""
    row = _find(ident)
    may = _may(request, visit.rights, row)
    if not (may["clone"] if action == "clone" else may["manage"]):
        right = "run" if action == "clone" and "run" not in visit.rights else "jobs"
        return forbid(request, visit, right)
    title, button, danger = QUESTIONS[action]
    back = reverse("snakepit:job", args=[row.pk])

    def carry_out(order: Order) -> HttpResponse:
        return redirect("snakepit:job", _do(request, row, action, order).pk)

    return ask(request, visit, Confirmation(title, _consequences(row, action), button, back, danger), carry_out)


def _do(request: HttpRequest, row: Job, action: str, order: Order) -> Job:
    if action == "cancel":
        return orders.cancel_job(row.pk, order)
    if action == "retry":
        return orders.retry_job(row.pk, order)
    owner = request.user.get_username()
    with acting_for(quota_of(owner)):
        return durable.clone(row.pk, owner)


def _consequences(row: Job, action: str) -> tuple[str, ...]:
    what = f"{row.pool}.{row.command}, {row.shown_state}, submitted {row.created_at:%Y-%m-%d %H:%M:%S} UTC."
    if action == "cancel":
        then = {
            "blocked": "It waits for other jobs: it ends immediately, and so do jobs that need its success.",
            "queued": "It waits: it ends immediately, and nothing of it has run.",
            "running": "It runs: the command is asked to stop, and its worker is replaced if it does not stop in time.",
        }.get(row.state, "It has ended already, so nothing changes.")
    elif action == "retry":
        then = "The same job is queued again with a new budget of attempts. Its earlier events are deleted."
    else:
        then = "A new job with the same command and arguments is queued in your name; this one stays as it is."
    return what, then


@require_GET
async def events(request: HttpRequest, ident: uuid.UUID) -> HttpResponseBase:
    """The events of the job as server-sent events, from the start or after Last-Event-ID."""
    row = await sync_to_async(_readable)(request, ident)
    if row is None:
        return HttpResponse("You may not read this job.", status=403, content_type="text/plain")
    try:
        last = position(request, row)
    except BadRequest:
        last = 0
    if last is None:
        return HttpResponse(status=204)
    return await stream(request, row.pk, last, lambda found: out(found, brief=True))


def _readable(request: HttpRequest, ident: uuid.UUID) -> Job | None:
    with db_unit():  # the stream lasts as long as the job, so it must not keep a database connection
        rights = rights_of(request.user)
        row = _find(ident) if rights else None
        return row if row is not None and _may(request, rights, row)["see"] else None


@page("jobs")
@require_GET
def payload(request: HttpRequest, visit: Visit, ident: str, which: str) -> HttpResponse:
    """Arguments or result as a download of any size; the browser never displays it."""
    row = _find(ident)
    if not _may(request, visit.rights, row)["see"]:
        return forbid(request, visit, "payload")
    value = row.arguments if which == "arguments" else row.value
    raw = isinstance(value, bytes)
    kind, ending = ("application/octet-stream", "bin") if raw else ("application/json", "json")
    headers = {"Content-Disposition": f'attachment; filename="{which}-{row.pk}.{ending}"'}
    return HttpResponse(value if raw else dumps(value), content_type=kind, headers=headers)


def _snippets(request: HttpRequest, row: Job) -> list[dict[str, str]]:
    url = api_url(request, "get_job", row.pk)
    found = [line("curl", curl(url))] if url else []
    return [*found, line("shell", f"snakepit job {row.pk} --follow")]
