"""The Django app. It registers checks and the making of groups: no sockets, threads or queries when Django starts."""

from __future__ import annotations

from django.apps import AppConfig
from django.db.models.signals import post_migrate


class PoolsConfig(AppConfig):
    name = "pools"
    label = "snakepit_pools"
    verbose_name = "Snakepit"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from pools import checks, permissions

        checks.register_all()
        post_migrate.connect(permissions.make_groups, sender=self, dispatch_uid="snakepit.groups")
