"""The audit: orders with actor, time, surface, reason and outcome."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from django.http import HttpRequest, HttpResponse

from snakepit.pools.api import pages
from snakepit.pools.broker.errors import BadRequest
from snakepit.pools.dashboard.page import Visit, page, show
from snakepit.pools.dashboard.snippets import api_url, curl, line
from snakepit.pools.models import Audit
from snakepit.pools.permissions import NEEDS

ROWS = 50
FILTERS = ("actor", "action", "pool", "target", "outcome")


@page("audit")
def audit(request: HttpRequest, visit: Visit) -> HttpResponse:
    given = {name: request.GET.get(name, "").strip().replace("\0", "") for name in FILTERS}
    wanted = {name: value for name, value in given.items() if value}
    context: dict[str, Any] = {"given": given, "same": urlencode(wanted), "cursor": request.GET.get("cursor", "")}
    context["actions"] = sorted({*NEEDS, "add_key", "change_key", "delete_key", "revoke_key", "rotate_key"})
    try:
        context["rows"], context["next"] = pages.page(Audit.objects.filter(**wanted), ROWS, context["cursor"] or None)
    except BadRequest as error:
        context |= {"rows": [], "trouble": error.message}
    if url := api_url(request, "list_audit"):
        context["snippets"] = [line("curl", curl(f"{url}?{context['same']}" if wanted else url))]
    return show(request, visit, "snakepit/audit.html", context)
