"""The names of Django's task API: from Django 6.0 on its own, before that those of the package django-tasks."""

from __future__ import annotations

import importlib
from typing import Any

from django.core.exceptions import ImproperlyConfigured


def _package() -> str:
    for name in ("django.tasks", "django_tasks"):
        try:
            importlib.import_module(name)
        except ModuleNotFoundError:
            continue
        return name
    raise ImproperlyConfigured("Tasks need Django 6.0 or later, or on Django 5.2: pip install 'django-tasks>=0.9'")


PACKAGE = _package()
# Both packages have the same names below, without one stub for the two.
_base: Any = importlib.import_module(f"{PACKAGE}.base")
_signals: Any = importlib.import_module(f"{PACKAGE}.signals")
_exceptions: Any = importlib.import_module(f"{PACKAGE}.exceptions")
_json: Any = importlib.import_module("django.utils.json" if PACKAGE == "django.tasks" else "django_tasks.utils")

BaseTaskBackend: Any = importlib.import_module(f"{PACKAGE}.backends.base").BaseTaskBackend
Task: Any = _base.Task
TaskContext: Any = _base.TaskContext
TaskError: Any = _base.TaskError
TaskResult: Any = _base.TaskResult
TaskResultStatus: Any = _base.TaskResultStatus
TaskResultDoesNotExist: Any = _exceptions.TaskResultDoesNotExist
normalize_json: Any = _json.normalize_json
task_enqueued: Any = _signals.task_enqueued
task_started: Any = _signals.task_started
task_finished: Any = _signals.task_finished
task_backends: Any = importlib.import_module(PACKAGE).task_backends
