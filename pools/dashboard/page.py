"""What every page of the dashboard shares: the permission check, the headers, and the frame.

    @page("pools")
    def pools(request, visit): return show(request, visit, "snakepit/pools.html", {...})

The headers are set here, not by a middleware, so that the pages of the host project keep their own.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import wraps
from typing import Any, Concatenate, ParamSpec

from django.conf import settings
from django.contrib import messages
from django.contrib.auth.views import redirect_to_login
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import NoReverseMatch, reverse
from django.utils.cache import add_never_cache_headers

from snakepit.pools.broker.errors import PermissionDenied
from snakepit.pools.dashboard.access import PERMISSIONS, VIEW, Rights, rights_of
from snakepit.pools.dashboard.hub import hub
from snakepit.pools.dashboard.navigation import navigation
from snakepit.pools.dashboard.region import Context, region
from snakepit.pools.dashboard.state import DashboardState
from snakepit.pools.operations import orders
from snakepit.pools.permissions import NEEDS
from snakepit.pools.web import away
from snakepit.pools.web.actor import order_of

VIEW_ONLY = frozenset({VIEW, "payload"})  # a user with no other right is refused every POST
# The action in the audit, for URLs whose name does not contain it (`pool-scale` does).
ORDERS = {"apply": "apply", "worker-stacks": "dump", "playground-run": "call", "playground-submit": "submit_job"}
THEMES = ("auto", "light", "dark")
Rest = ParamSpec("Rest")


@dataclass(frozen=True, slots=True)
class Visit:
    """One request of a user who may view the dashboard."""

    section: str
    rights: Rights
    nonce: str
    _states: list[DashboardState] = field(default_factory=list)

    def may(self, right: str) -> bool:
        return right in self.rights

    def state(self) -> DashboardState:
        """The state, at most a second old, and the same for the whole page; many pages ask the broker once."""
        if not self._states:
            self._states.append(hub.fresh())
        return self._states[0]

    def refresh(self) -> None:
        """Make the next page ask the broker, so that it shows the result of an order."""
        hub.forget()


View = Callable[Concatenate[HttpRequest, Visit, Rest], HttpResponse]


@region("banner", "snakepit/_banner.html")
def banner(state: DashboardState, _: str) -> Context:
    """At the top of every page: the broker does not answer, and since when."""
    return {}


def page(section: str, right: str = VIEW) -> Callable[[View[Rest]], Callable[..., HttpResponse]]:
    """A view of the dashboard. Anonymous users go to the login; without the right the answer is 403 with its name.

    A missing object is a page in the frame, because an event or the audit may link to a pool that is gone.
    """

    def decorate(view: View[Rest]) -> Callable[..., HttpResponse]:
        @wraps(view)
        def guarded(request: HttpRequest, *args: Rest.args, **kwargs: Rest.kwargs) -> HttpResponse:
            if known := away.frozen.error(time.monotonic()):
                return away.away_page(known)
            with away.noting() if away.has_session(request) else nullcontext():
                return answered(request, *args, **kwargs)

        def answered(request: HttpRequest, *args: Rest.args, **kwargs: Rest.kwargs) -> HttpResponse:
            rights = rights_of(request.user)
            visit = Visit(section, rights, secrets.token_urlsafe(18))
            view_only = rights <= VIEW_ONLY and request.method not in ("GET", "HEAD")
            if request.method == "POST" and request.user.is_authenticated and (view_only or right not in rights):
                _note(request, right, kwargs)
            if right in rights and view_only:
                response = forbid(request, visit, "operate")
            elif right in rights:
                try:
                    response = view(request, visit, *args, **kwargs)
                except Http404 as missing:
                    response = show(request, visit, "snakepit/missing.html", {"what": str(missing)}, status=404)
            elif not request.user.is_authenticated:
                response = redirect_to_login(request.get_full_path(), login_url=_login_url())
            else:
                response = forbid(request, visit, right)
            return harden(response, visit.nonce)

        return guarded

    return decorate


def forbid(request: HttpRequest, visit: Visit, right: str) -> HttpResponse:
    """403, with the name of the right that is missing."""
    context = {"right": right, "permission": PERMISSIONS[right], "login": _login_url()}
    return show(request, visit, "snakepit/forbidden.html", context, status=403)


def _note(request: HttpRequest, right: str, of: Mapping[str, Any]) -> None:
    """Record a refused order in the audit, as for REST."""
    url = (request.resolver_match and request.resolver_match.url_name) or ""
    noun, _, verb = url.partition("-")
    action = ORDERS.get(url) or _action_in(url, of) or verb
    if action not in NEEDS:  # the page takes no orders
        return
    lacking = PERMISSIONS["operate" if right == VIEW else right]
    error = PermissionDenied(f"user {request.user.get_username()} lacks the permission {lacking}")
    order = order_of(request, request.POST.get("reason", ""), "dashboard")
    name = str(of.get("name", ""))
    pool, target = (name, "") if noun == "pool" else ("", name or str(of.get("ident") or of.get("key") or ""))
    orders.refused(order, action, error, pool, target)


def _action_in(url: str, of: Mapping[str, Any]) -> str:
    """The action of an URL that has it as a parameter."""
    kinds = {"job-act": "job", "jobs-act": "jobs", "periodic-act": "periodic"}
    return f"{of['action']}_{kinds[url]}" if url in kinds else ""


def show(
    request: HttpRequest, visit: Visit, template: str, context: dict[str, Any] | None = None, status: int = 200
) -> HttpResponse:
    """Render a page in the frame `snakepit/base.html`."""
    theme = request.COOKIES.get("snakepit_theme", "")
    frame = {
        "visit": visit,
        "rights": visit.rights,
        "nonce": visit.nonce,
        "navigation": list(navigation(visit.rights, visit.section)),
        "theme": theme if theme in THEMES else "auto",
        "elsewhere": _elsewhere(),
        "messages": messages.get_messages(request),  # also without the context processor
        "request": request,
    }
    return render(request, template, {**frame, **(context or {})}, status=status)


def notify(request: HttpRequest, text: str, level: int = messages.SUCCESS) -> None:
    """Show a message on the next page, if the project has django.contrib.messages."""
    messages.add_message(request, level, text, fail_silently=True)


def harden(response: HttpResponse, nonce: str) -> HttpResponse:
    """Forbid scripts and styles that this project did not send: the output of a worker may contain some."""
    from_here = f"'self' 'nonce-{nonce}'"
    response.headers["Content-Security-Policy"] = (
        f"default-src 'none'; script-src {from_here}; style-src {from_here}; img-src 'self'; font-src 'self'; "
        "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    )
    response.headers["Referrer-Policy"] = "same-origin"
    response.headers["X-Content-Type-Options"] = "nosniff"
    add_never_cache_headers(response)
    return response


def _elsewhere() -> list[dict[str, str]]:
    """Links to the API page and the admin, where the host project has them."""
    found = []
    for title, name in (("API", "snakepit-api:openapi-view"), ("Admin", "admin:index")):
        try:
            found.append({"title": title, "url": reverse(name)})
        except NoReverseMatch:
            continue
    return found


def _login_url() -> str | None:
    """The project's LOGIN_URL. If it sets none, the admin's login; None stands for Django's default."""
    project: Any = settings
    if project.is_overridden("LOGIN_URL"):
        return None
    try:
        return reverse("admin:login")
    except NoReverseMatch:
        return None
