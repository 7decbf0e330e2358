"""The adapter that runs Django's tasks: Django is set up once in the template, and workers are forked from it."""

from __future__ import annotations

import importlib
from importlib.util import find_spec
from typing import Any

from snakepit.workers import Adapter, command

TASKS = "tasks"  # the module of an app that is imported


class DjangoTasks(Adapter):
    """Runs tasks by their path. Only tasks in the modules `tasks` of INSTALLED_APPS, or in `modules`, are run.

    `modules` comes from the pool's `args`; it names modules below installed apps that hold more tasks.
    """

    def __init__(self, modules: list[str] | None = None) -> None:
        from django.apps import apps

        for name in modules or ():
            if not apps.get_containing_app_config(name):
                raise ValueError(f"modules: {name} is in no app of INSTALLED_APPS")
            importlib.import_module(name)

    @classmethod
    def preload(cls) -> None:
        """Set Django up and import the tasks. Connections are made in each worker, after the fork."""
        import django
        from django.apps import apps

        if not apps.ready:  # a second setup() configures logging again, which removes the handlers of a test
            django.setup()
        from django.db import connections

        for app in apps.get_app_configs():
            if find_spec(f"{app.name}.{TASKS}") is not None:
                importlib.import_module(f"{app.name}.{TASKS}")
        connections.close_all()

    def setup(self) -> None:
        self.preload()  # a spawned worker has no template; a second call finds all done

    @command
    def run(self, task: str, args: list[Any], kwargs: dict[str, Any], backend: str, key: str) -> Any:
        """Run a task. Its exceptions end the call, and with it the task's result."""
        from django.db import close_old_connections

        from snakepit.pools.django_tasks.execution import execute

        close_old_connections()
        try:
            return execute(task, args, kwargs, backend, key)
        finally:
            close_old_connections()
