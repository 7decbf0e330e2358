"""The errors of jobs in groups, with the filters of the list."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from django.http import HttpRequest, HttpResponse

from snakepit.pools.broker.errors import BadRequest
from snakepit.pools.dashboard.jobs import FILTERS, SPANS, filtered
from snakepit.pools.dashboard.page import Visit, page, show
from snakepit.pools.dashboard.snippets import api_url, curl, line, shell
from snakepit.pools.jobs import error_groups
from snakepit.pools.models import Pool

SHOWN = tuple(name for name in FILTERS if name not in ("tag", "arguments"))


@page("jobs")
def errors(request: HttpRequest, visit: Visit) -> HttpResponse:
    """The groups, the largest first. Of jobs whose payload the user may not see, only the kind of the error."""
    given = dict.fromkeys(FILTERS, "") | {name: request.GET.get(name, "").strip() for name in SHOWN}
    mine = request.user.get_username() if "run" in visit.rights else None
    context: dict[str, Any] = {"given": given, "spans": SPANS, "covered": error_groups.COVERED}
    try:
        rows = filtered(request, visit, given)
        context["groups"] = error_groups.groups(rows, lambda owner: "payload" in visit.rights or owner == mine)
    except BadRequest as error:
        context |= {"trouble": error.message, "groups": []}
    context["same"] = urlencode({name: value for name, value in given.items() if value})
    context["pools"] = list(Pool.objects.values_list("name", flat=True))
    url = api_url(request, "job_errors")
    context["snippets"] = [*([line("curl", curl(url))] if url else []), shell("snakepit jobs errors")]
    return show(request, visit, "snakepit/job_errors.html", context)
