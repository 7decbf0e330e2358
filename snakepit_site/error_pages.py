"""The pages for 400, 403, 404 and 500 in the site's own look, each with the way back. The API answers in JSON.

They need no database, session or user, so that they also come for errors of middleware.
"""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.template.loader import render_to_string

from snakepit.pools.web import away


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    return _page(400, "Bad request", "The server cannot read this request.", "Check the address, and try again.")


def not_allowed(request: HttpRequest, exception: Exception) -> HttpResponse:
    what = str(exception) or "Your user may not open this page."
    return _page(403, "Not allowed", what, "Sign in as a user with the permission.")


def form_expired(request: HttpRequest, reason: str = "") -> HttpResponse:
    """For a form without the token that Django gave to this browser."""
    return _page(
        403, "Form refused", "The form has no valid security token.",
        "Go back, reload the page and send the form again. The browser must accept cookies of this site.",
    )  # fmt: skip


def not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    return _page(404, "Not found", f"There is no page at {request.path}.", "Check the address.")


def server_error(request: HttpRequest) -> HttpResponse:
    """The page for an error in the code; while the database is away, the page with the cause."""
    response = away.server_error(request)
    if response.status_code != 500:
        return response
    return _page(500, "Internal error", "The page failed with an error.", "The web server's log has the traceback.")


def _page(status: int, title: str, what: str, advice: str) -> HttpResponse:
    # Rendered without the request, because its context processors would query the user.
    context = {"title": title, "what": what, "advice": advice}
    return HttpResponse(render_to_string("snakepit/error.html", context), status=status)
