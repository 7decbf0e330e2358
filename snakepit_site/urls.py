"""The dashboard, api/ and admin/."""

from __future__ import annotations

from django.contrib import admin
from django.urls import include, path

admin.site.site_title = admin.site.site_header = "Snakepit"

urlpatterns = [
    path("api/", include("pools.urls")),
    path("admin/", admin.site.urls),
    path("", include("pools.dashboard.urls")),
]
