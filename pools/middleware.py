"""Middleware of the site: hosts, headers of proxies, the Content-Security-Policy, pages without a database."""

from __future__ import annotations

import logging
import time

from django.core.exceptions import DisallowedHost
from django.http import HttpRequest, HttpResponse
from django.utils.deprecation import MiddlewareMixin

from snakepit.pools import conf, proxies
from snakepit.pools.broker.errors import BadRequest
from snakepit.pools.broker.text import one_line
from snakepit.pools.web import away
from snakepit.pools.web.errors import database_is_away, error_response

logger = logging.getLogger("snakepit.pages")


# For pages of others, such as the admin and the API page. They have no inline script; some set styles in the page.
POLICY = (
    "default-src 'self'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; object-src 'none'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
BEGAN = "snakepit.began"  # in a request's META: when the view of a page began
OF_PROXIES = ("FOR", "PROTO", "HOST", "PORT", "PREFIX")


class TrustedProxies(MiddlewareMixin):
    """Take the client's address from the headers of SNAKEPIT["TRUSTED_PROXIES"]; drop such headers of other peers.

    It comes first. Settings that trust a header, such as SECURE_PROXY_SSL_HEADER, are then safe. The server's own
    treatment of these headers must be off (uvicorn: --no-proxy-headers), because it hides the peer's address.
    """

    def process_request(self, request: HttpRequest) -> None:
        trusted, meta = conf.current().trusted_proxies, request.META
        peer = str(meta.get("REMOTE_ADDR") or "")
        if proxies.is_trusted(peer, trusted):
            meta["REMOTE_ADDR"] = proxies.client_of(peer, str(meta.get("HTTP_X_FORWARDED_FOR", "")), trusted)
        else:
            for name in ("HTTP_FORWARDED", *(f"HTTP_X_FORWARDED_{one}" for one in OF_PROXIES)):
                meta.pop(name, None)


class ContentSecurityPolicy(MiddlewareMixin):
    """Set a policy on each response without one. The dashboard sets its own, which is stricter."""

    def process_response(self, request: HttpRequest, response: HttpResponse) -> HttpResponse:
        response.headers.setdefault("Content-Security-Policy", POLICY)
        return response


class DatabaseAway(MiddlewareMixin):
    """Respond to pages with 503 and Retry-After while the database is unavailable. The API has its own handler.

    One page of the admin waits for a frozen database, as one of the dashboard does; the others have their answer at
    once.
    """

    def process_view(self, request: HttpRequest, *view: object) -> HttpResponse | None:
        if not _is_of_the_admin(request):
            return None
        request.META[BEGAN] = time.monotonic()
        known = away.frozen.error(request.META[BEGAN])
        return away.away_page(known) if known else None

    def process_response(self, request: HttpRequest, response: HttpResponse) -> HttpResponse:
        if response.status_code < 500 and _is_of_the_admin(request):
            away.frozen.answered()
        return response

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponse | None:
        if not database_is_away(exception):
            return None
        if began := request.META.get(BEGAN):
            now = time.monotonic()
            away.frozen.failed(exception, now - began, now)
        logger.warning("%s %s: the database is unavailable: %s", request.method, request.path, exception)
        return away.away_page(exception)


def _is_of_the_admin(request: HttpRequest) -> bool:
    match = request.resolver_match
    return match is not None and "admin" in match.app_names  # each of its pages asks for the user


class HostCheck(MiddlewareMixin):
    """Refuse a Host header that ALLOWED_HOSTS does not have, with one line in the log. Put it first.

    Django's own refusal logs a traceback of thirty lines for each such request, and answers with HTML.
    """

    def process_request(self, request: HttpRequest) -> HttpResponse | None:
        try:
            request.get_host()
        except DisallowedHost:
            host = one_line(request.headers.get("Host", ""))[:100]
            logger.warning("%s %s: the host %s is not in ALLOWED_HOSTS", request.method, one_line(request.path), host)
            message = "The Host header is not one of this site's host names (ALLOWED_HOSTS)."
            if request.path_info.startswith("/api/"):
                response = error_response(BadRequest(message))
                response["Cache-Control"] = "no-store"
                return response
            return HttpResponse(message, status=400, content_type="text/plain; charset=utf-8")
        return None
