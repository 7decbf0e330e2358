"""Workflows: the list, and the drawing of one with the states of its jobs."""

from __future__ import annotations

import uuid
from typing import Any

from django.http import Http404, HttpRequest, HttpResponse
from django.urls import reverse

from snakepit.pools.api.workflows import describe
from snakepit.pools.dashboard.page import Visit, page, show
from snakepit.pools.dashboard.snippets import api_url, curl, line, shell
from snakepit.pools.jobs.workflow_graph import Box, draw
from snakepit.pools.models import JobWorkflow

ROWS = 50
DRAWN = 300  # jobs; a larger drawing is not readable, and the table has them all


@page("jobs")
def workflows(request: HttpRequest, visit: Visit) -> HttpResponse:
    """The newest workflows, with the number of jobs in each state."""
    found = JobWorkflow.objects.order_by("-pk")
    if "cursor" in request.GET:
        try:
            found = found.filter(pk__lt=uuid.UUID(request.GET["cursor"]))
        except ValueError:
            raise Http404("There is no such page.") from None
    rows = list(found[: ROWS + 1])
    context: dict[str, Any] = {"rows": [_brief(row) for row in rows[:ROWS]]}
    context["next"] = rows[ROWS - 1].pk if len(rows) > ROWS else None
    url = api_url(request, "list_workflows")
    context["snippets"] = [line("curl", curl(url))] if url else []
    return show(request, visit, "snakepit/workflows.html", context)


def _brief(row: JobWorkflow) -> dict[str, Any]:
    return {**describe(row, row.jobs.all(), brief=True), "at": row.created_at}


@page("jobs")
def workflow(request: HttpRequest, visit: Visit, ident: uuid.UUID) -> HttpResponse:
    """The drawing, and a table of the same for screen readers. The script asks for this part again."""
    row = JobWorkflow.objects.filter(pk=ident).first()
    if row is None:
        raise Http404("There is no such workflow; it may have been deleted with its jobs.")
    shown = describe(row, row.jobs.all())
    jobs = shown["jobs"]
    context: dict[str, Any] = {"flow": {**shown, "at": row.created_at}, "count": len(jobs)}
    texts = {job["id"]: f"{job['pool']}.{job['command']}" for job in jobs}
    context["jobs"] = [{**job, "after": [(one, texts.get(one, one)) for one in job["after"]]} for job in jobs]
    if len(jobs) <= DRAWN:
        boxes = [Box(job["id"], texts[job["id"]], job["state"]) for job in jobs]
        context["drawing"] = draw(boxes, [(one, job["id"]) for job in jobs for one in job["after"]])
    alone = request.GET.get("part") == "now"
    if not alone:
        url = api_url(request, "get_workflow", row.pk)
        cancel = f"snakepit jobs cancel --workflow {row.pk}"
        context["snippets"] = [*([line("curl", curl(url))] if url else []), shell("snakepit workflow", row.pk)]
        context["snippets"] += [{**line("shell", cancel), "changes": "yes"}]
        context["address"] = reverse("snakepit:workflow", args=[row.pk])
    return show(request, visit, "snakepit/_workflow.html" if alone else "snakepit/workflow.html", context)
