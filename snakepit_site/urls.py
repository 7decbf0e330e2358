"""The URLs: the dashboard, api/, admin/, and the icon for pages without a link to it, such as the admin's."""

from __future__ import annotations

from django.conf import settings
from django.contrib import admin
from django.contrib.staticfiles.views import serve
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.templatetags.static import static
from django.urls import include, path

handler400 = "snakepit.site.error_pages.bad_request"
handler403 = "snakepit.site.error_pages.not_allowed"
handler404 = "snakepit.site.error_pages.not_found"
handler500 = "snakepit.site.error_pages.server_error"
admin.site.site_title = admin.site.site_header = "Snakepit"


def icon(request: HttpRequest) -> HttpResponse:
    return redirect(static("snakepit/icon.svg"))


urlpatterns = [
    path("api/", include("snakepit.pools.urls")),
    path("admin/", admin.site.urls),
    path("favicon.ico", icon),
    path("", include("snakepit.pools.dashboard.urls")),
]
if not settings.WHITENOISE:
    # `insecure` is Django's word for "not only while DEBUG is on". The files are those of the apps, which are public.
    urlpatterns.insert(0, path(f"{settings.STATIC_URL.strip('/')}/<path:path>", serve, {"insecure": True}))
