"""Respond to pages with 503 and Retry-After while the database is unavailable. The API has its own handler."""

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
        logger.warning("%s %s: the database is unavailable: %s", request.method, request.path, exception)
        # Rendered without the request, because its context processors would query the user.
        page = HttpResponse(render_to_string("snakepit/database_away.html"), status=503)
        page["Retry-After"] = str(round(DATABASE_PAUSE))
        page["Cache-Control"] = "no-store"
        return page
