"""The URLs of the API, for `path("api/", include("pools.urls"))`."""

from __future__ import annotations

from pools.api.app import urlpatterns as api_urlpatterns

app_name = "snakepit-api"
urlpatterns = api_urlpatterns()
