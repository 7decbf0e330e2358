"""The Django app. `ready` only registers checks and receivers: no sockets, threads or queries at startup."""

from __future__ import annotations

from django.apps import AppConfig
from django.core.signals import setting_changed
from django.db.models.signals import post_migrate, post_save, pre_migrate, pre_save


class PoolsConfig(AppConfig):
    name = "snakepit.pools"
    label = "snakepit_pools"
    verbose_name = "Snakepit"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from snakepit.pools import checks, conf, greenlets, permissions
        from snakepit.pools.models import job_guard

        checks.register_all()
        setting_changed.connect(conf.follow_test, dispatch_uid="snakepit.test")
        conf.follow_test()
        post_migrate.connect(permissions.make_groups, sender=self, dispatch_uid="snakepit.groups")
        pre_migrate.connect(job_guard.remove, sender=self, dispatch_uid="snakepit.guard")
        post_migrate.connect(job_guard.install, sender=self, dispatch_uid="snakepit.guard")
        signals = (pre_save, job_guard.permit_fixtures), (post_save, job_guard.end_fixtures)
        for signal, receiver in signals:
            signal.connect(receiver, sender="snakepit_pools.JobEntry", dispatch_uid="snakepit.fixtures")
        greenlets.log_if_patched()
