"""The Django app. It only registers checks: no sockets, threads or queries when Django starts."""

from __future__ import annotations

from django.apps import AppConfig


class PoolsConfig(AppConfig):
    name = "pools"
    label = "snakepit_pools"
    verbose_name = "Snakepit"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from pools import checks

        checks.register_all()
