"""Pages while the database is away: 503 with Retry-After instead of a failure of the site. The API has its own way."""

from __future__ import annotations

import logging

from django.http import HttpRequest, HttpResponse
from django.template.loader import render_to_string
from django.utils.deprecation import MiddlewareMixin

from snakepit.pools.web.errors import DATABASE_PAUSE, database_is_away

logger = logging.getLogger("snakepit.pages")


class DatabaseAway(MiddlewareMixin):
    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponse | None:
        if not database_is_away(exception):
            return None
        logger.warning("%s %s: the database does not answer: %s", request.method, request.path, exception)
        # Without the request: its context would look the user up.
        page = HttpResponse(render_to_string("snakepit/database_away.html"), status=503)
        page["Retry-After"] = str(round(DATABASE_PAUSE))
        page["Cache-Control"] = "no-store"
        return page
