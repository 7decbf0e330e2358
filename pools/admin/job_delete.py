"""Delete ended jobs in the admin: a confirmation page with the count, then the same batches as the dashboard's."""

from __future__ import annotations

import uuid
from typing import Any

from django.contrib import admin, messages
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse

from snakepit.pools.admin.page import order
from snakepit.pools.jobs import bulk_actions
from snakepit.pools.models.job import JobQuerySet
from snakepit.pools.operations import job_orders

SECONDS = 10.0  # a request works no longer; the message then says that jobs are left


def delete(page: admin.ModelAdmin[Any], request: HttpRequest, rows: JobQuerySet) -> HttpResponse | None:
    """Show how many of the selected jobs have ended, then delete these."""
    upto = _upto(request)
    found = bulk_actions.preview("delete", rows if upto is None else rows.filter(pk__lte=upto))
    if found.upto is None:
        page.message_user(
            request, "None of the selected jobs has ended. Cancel a job before you delete it.", messages.WARNING
        )
        return None
    if upto is None:
        return _confirm(page, request, found)
    done = job_orders.act("delete", rows, _filters(request), order(request), upto=upto, seconds=SECONDS)
    left = " There are more: repeat the action." if done.left else ""
    page.message_user(request, f"{done.done:,} jobs {job_orders.DONE['delete']}.{left}", messages.SUCCESS)
    return None


def _upto(request: HttpRequest) -> uuid.UUID | None:
    """The newest job of the page that was confirmed: newer jobs stay."""
    try:
        return uuid.UUID(request.POST.get("upto", ""))
    except ValueError:
        return None


def _confirm(page: admin.ModelAdmin[Any], request: HttpRequest, found: bulk_actions.Preview) -> HttpResponse:
    count = f"{found.count:,}{'+' if found.more else ''} {'job' if found.count == 1 else 'jobs'}"
    context = {
        **page.admin_site.each_context(request),
        "title": f"Delete {count}?",
        "count": count,
        "found": found,
        "selected": request.POST.getlist("_selected_action"),
        "across": request.POST.get("select_across", "0"),
        "back": request.get_full_path(),
    }
    return TemplateResponse(request, "snakepit/job_delete_confirm.html", context)


def _filters(request: HttpRequest) -> dict[str, str]:
    """What selected the jobs, for the audit row."""
    if request.POST.get("select_across") == "1":
        return {**request.GET.dict(), "selected": "all that match in the admin"}
    return {"selected": f"{len(request.POST.getlist('_selected_action'))} in the admin"}
