"""Runs one task inside a worker, with Django's signals around it."""

from __future__ import annotations

import sys
import traceback
from typing import Any

from snakepit.pools.django_tasks import api
from snakepit.pools.django_tasks.backend import COMMAND, SnakepitBackend
from snakepit.pools.models import Job, schema
from snakepit.pools.models.moments import utc_now
from snakepit.workers import Snooze


def execute(path: str, args: list[Any], kwargs: dict[str, Any], alias: str, key: str) -> Any:
    """Run the task at `path` and return its value as JSON holds it. Raises what the task raises."""
    task = loaded_task(path)
    backend = api.task_backends[alias]
    if not isinstance(backend, SnakepitBackend):
        raise ValueError(f'TASKS["{alias}"] is not this backend in the settings of the worker')
    job = Job.objects.using(schema.alias()).get(command=COMMAND, idempotency_key=key, arguments__key=key)
    result = backend.result_of(job)
    api.task_started.send(type(backend), task_result=result)
    try:
        first = (api.TaskContext(task_result=result),) if task.takes_context else ()
        value = api.normalize_json(task.call(*first, *args, **kwargs))
    except Snooze:  # the task has not ended: it runs again later
        raise
    except BaseException as error:
        kind = type(error)
        shown = "".join(traceback.format_exception(error))
        name = f"{kind.__module__}.{kind.__qualname__}"
        result.errors.append(api.TaskError(exception_class_path=name, traceback=shown))
        _finish(backend, result, "FAILED")
        raise
    object.__setattr__(result, "_return_value", value)
    _finish(backend, result, "SUCCESSFUL")
    return value


def loaded_task(path: str) -> Any:
    """The task at a path, from the modules that are loaded: a row must not make a worker import anything."""
    module, _, name = path.rpartition(".")
    found = getattr(sys.modules.get(module), name, None)
    if not isinstance(found, api.Task):
        raise LookupError(
            f"{path} is no task of this worker: it runs those in the module `tasks` of each installed app, "
            "and in the adapter's `modules`"
        )
    return found


def _finish(backend: Any, result: Any, status: str) -> None:
    object.__setattr__(result, "status", api.TaskResultStatus[status])
    object.__setattr__(result, "finished_at", utc_now())
    api.task_finished.send(type(backend), task_result=result)
