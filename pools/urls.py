"""The URLs of the API, for `path("api/", include("snakepit.pools.urls"))`."""

from __future__ import annotations

from snakepit.pools.api.app import urlpatterns as api_urlpatterns

app_name = "snakepit-api"
urlpatterns = api_urlpatterns()
