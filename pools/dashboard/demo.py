"""Log in to the demo with the token that `snakepit up --demo` prints."""

from __future__ import annotations

import hmac

from django.conf import settings
from django.contrib.auth import get_user_model, login
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseForbidden
from django.shortcuts import redirect
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET


@never_cache
@require_GET
def demo_login(request: HttpRequest) -> HttpResponse:
    token = getattr(settings, "SNAKEPIT_DEMO_TOKEN", "")
    if not token:
        raise Http404("There is no demo login here.")
    if not hmac.compare_digest(request.GET.get("token", "").encode(), token.encode()):
        return HttpResponseForbidden("The token is wrong: use the link printed last.", content_type="text/plain")
    users = get_user_model()
    user, fresh = users.objects.get_or_create(username="demo", defaults={"is_staff": True, "is_superuser": True})
    if fresh:
        user.set_unusable_password()
        user.save()
    login(request, user, backend="django.contrib.auth.backends.ModelBackend")
    return redirect("snakepit:overview")
