"""Log in to the demo with the link that `snakepit up --demo` prints: it works once, and for an hour."""

from __future__ import annotations

import hmac
from typing import Any

from django.conf import settings
from django.contrib.auth import get_user_model, login
from django.core import signing
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseForbidden
from django.shortcuts import redirect
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET

USER = "demo"
VALID = 3600  # seconds
SALT = "snakepit.demo-login"
WRONG = "The token is wrong: use the link printed last."
USED = (
    "This link was used already, or is older than an hour. Start `snakepit up --demo` again for a new one, or set a "
    f"password with `manage.py changepassword {USER}`."
)


def login_token(user: Any) -> str:
    """A token for one login. It names the user's last login, which the next one changes."""
    return signing.dumps(_before(user), salt=SALT)


def _before(user: Any) -> str:
    return f"{user.pk} {user.last_login}"


@never_cache
@require_GET
def demo_login(request: HttpRequest) -> HttpResponse:
    token = getattr(settings, "SNAKEPIT_DEMO_TOKEN", "")
    if not token:
        raise Http404("There is no demo login here.")
    if not hmac.compare_digest(request.GET.get("token", "").encode(), token.encode()):
        return HttpResponseForbidden(WRONG, content_type="text/plain")
    user = get_user_model().objects.filter(username=USER).first()
    try:
        fits = user is not None and signing.loads(token, salt=SALT, max_age=VALID) == _before(user)
    except signing.BadSignature:
        fits = False
    if user is None or not fits:
        if request.user == user:  # a second click in the same browser
            return redirect("snakepit:overview")
        return HttpResponseForbidden(USED, content_type="text/plain")
    login(request, user, backend="django.contrib.auth.backends.ModelBackend")
    return redirect("snakepit:overview")
