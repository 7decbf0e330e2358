"""The list of jobs: filtered by state, pool, command, tag and age; paged by key; counts are capped."""

from __future__ import annotations

import shlex
from datetime import timedelta
from typing import Any
from urllib.parse import urlencode

from django.db import connections
from django.http import HttpRequest, HttpResponse

from snakepit.pools.broker.errors import BadRequest
from snakepit.pools.dashboard.page import Visit, page, show
from snakepit.pools.dashboard.snippets import api_url, curl, line
from snakepit.pools.jobs import listing
from snakepit.pools.jobs.privacy import hide_payload
from snakepit.pools.models import Job, Pool, schema
from snakepit.pools.models.job import JobQuerySet
from snakepit.pools.models.moments import utc_now
from snakepit.pools.models.states import SCHEDULED

ROWS = 50
SPANS = {"15m": 15, "1h": 60, "6h": 360, "1d": 1440, "7d": 10_080}  # minutes
FILTERS = ("state", "pool", "command", "owner", "tag", "span", "arguments")


@page("jobs")
def jobs(request: HttpRequest, visit: Visit) -> HttpResponse:
    """The whole page, or the table alone for its script, which asks every few seconds."""
    given = {name: request.GET.get(name, "").strip() for name in FILTERS}
    alone = request.GET.get("part") == "table"
    context: dict[str, Any] = {"given": given, "spans": SPANS, "cursor": request.GET.get("cursor", "")}
    try:
        context |= _found(request, visit, given, context["cursor"])
        context["rows"] = [described(_seen(request, visit, job)) for job in context["rows"]]
    except BadRequest as error:
        context |= {"trouble": error.message, "rows": [], "states": []}
    pools = list(Pool.objects.values_list("name", "queue_paused"))
    context["paused"] = [name for name, paused in pools if paused]
    context["same"] = urlencode({name: value for name, value in given.items() if value})
    context["actions"] = ("cancel", "retry", "delete") if {"jobs", "run"} & visit.rights else ()
    if not alone:
        context["searches"] = connections[schema.alias()].vendor == "postgresql"
        context["pools"] = [name for name, _ in pools]
        context["snippets"] = _snippets(request, given)
    return show(request, visit, "snakepit/_jobs.html" if alone else "snakepit/jobs.html", context)


def _found(request: HttpRequest, visit: Visit, given: dict[str, str], cursor: str) -> dict[str, Any]:
    rows, after = listing.page(filtered(request, visit, given), ROWS, cursor)
    counted = filtered(request, visit, {**given, "state": ""})
    # A count for each state would search the arguments of 20,000 jobs as many times.
    counts = {} if given["arguments"] else listing.counts_by_state(counted)
    return {
        "rows": rows,
        "next": after,
        "states": [_state(name, count, more, given) for name, (count, more) in counts.items()],
        "scanned": listing.SCANNED if given["tag"] or given["arguments"] else 0,
    }


def filtered(request: HttpRequest, visit: Visit, given: dict[str, str]) -> JobQuerySet:
    """The jobs that match the filters of the page. A search in arguments covers those that the user may see."""
    among = Job.objects.all()
    if given["arguments"] and "payload" not in visit.rights:
        among = among.filter(owner=request.user.get_username()) if "run" in visit.rights else among.none()
    wanted: dict[str, Any] = {name: given[name] for name in ("state", "pool", "command", "owner", "tag", "arguments")}
    return listing.JobQuery(**wanted, since=_since(given["span"])).rows(among)


def _seen(request: HttpRequest, visit: Visit, job: Job) -> Job:
    mine = job.owner == request.user.get_username() and "run" in visit.rights
    return job if mine or "payload" in visit.rights else hide_payload(job)


def _state(name: str, count: int, more: bool, given: dict[str, str]) -> dict[str, Any]:
    others = {key: value for key, value in given.items() if value and key != "state"}
    chosen = given["state"] == name
    query = urlencode(others if chosen else {**others, "state": name})
    return {"name": name, "count": count, "more": more, "query": query, "chosen": chosen}


def _since(span: str) -> Any:
    if not span:
        return None
    if span not in SPANS:
        raise BadRequest(f"span: {span!r} is not one of {', '.join(SPANS)}")
    return utc_now() - timedelta(minutes=SPANS[span])


def described(job: Job) -> dict[str, Any]:
    """A job as a row of the list; times in seconds."""
    now = utc_now()
    begun = job.started_at if job.state != "queued" else None
    due = max(job.queued_at, job.run_after or job.queued_at)  # it does not wait for a worker before
    waited = ((begun or job.finished_at or now) - due).total_seconds()
    ran = ((job.finished_at or now) - begun).total_seconds() if begun else None
    return {
        "id": str(job.pk),
        "short": str(job.pk)[-12:],
        "pool": job.pool,
        "command": job.command,
        "state": job.shown_state,
        "run_after": job.run_after if job.shown_state == SCHEDULED else None,
        "attempts": job.attempts,
        "max_attempts": job.max_attempts,
        "owner": job.owner,
        "tags": job.tag_list,
        "progress": job.progress,
        "progress_message": job.progress_message,
        "created_at": job.created_at,
        "waited": None if job.shown_state == SCHEDULED else max(0.0, waited),
        "ran": ran,
        "arguments": job.arguments_short,
        "error": (job.error or {}).get("message", ""),
        "code": (job.error or {}).get("code", ""),
        "cancel_requested": job.cancel_requested and not job.ended,
    }


def _snippets(request: HttpRequest, given: dict[str, str]) -> list[dict[str, str]]:
    known = {name: given[name] for name in ("state", "pool", "command", "owner", "tag") if given[name]}
    url = api_url(request, "list_jobs")
    options = "".join(f" --{name} {shlex.quote(given[name])}" for name in ("state", "pool") if given[name])
    found = [line("curl", curl(f"{url}?{urlencode(known)}" if known else url))] if url else []
    return [*found, line("shell", f"snakepit jobs{options}")]
