"""The home page, api/ and admin/."""

from __future__ import annotations

from django.contrib import admin
from django.urls import include, path

from pools import views

admin.site.site_title = admin.site.site_header = "Snakepit"

urlpatterns = [
    path("", views.home, name="home"),
    path("live/", views.home_live, name="home-live"),
    path("demo-login/", views.demo_login, name="demo-login"),
    path("api/", include("pools.urls")),
    path("admin/", admin.site.urls),
]
