"""The URLs of the dashboard, for `path("snakepit/", include("pools.dashboard.urls"))`."""

from __future__ import annotations

from django.urls import path

from pools.dashboard import demo, overview, pools, series, stream

app_name = "snakepit"
urlpatterns = [
    path("", overview.overview, name="overview"),
    path("pools/", pools.pools, name="pools"),
    path("live/stream/", stream.stream, name="stream"),
    path("live/fragments/", stream.fragments, name="fragments"),
    path("live/series/", series.series, name="series"),
    path("demo-login/", demo.demo_login, name="demo-login"),
]
