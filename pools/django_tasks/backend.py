"""The task backend: each task is a job of a pool, and a task's result is the job's row."""

from __future__ import annotations

import contextlib
import importlib
import secrets
import sys
import uuid
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from asgiref.sync import sync_to_async
from django.apps import apps
from django.core import checks
from django.core.exceptions import ImproperlyConfigured

from snakepit.pools import conf
from snakepit.pools.broker import errors
from snakepit.pools.django_tasks import api
from snakepit.pools.jobs import submission
from snakepit.pools.models import Job, schema
from snakepit.pools.models.moments import utc_now
from snakepit.pools.models.states import QUEUED, RUNNING, SUCCEEDED

ADAPTER = "snakepit.pools.django_tasks.adapter.DjangoTasks"
COMMAND = "run"
OPTIONS = ("pools", "timeout", "retry", "max_attempts", "backoff", "retention")
STATUS = {QUEUED: "READY", RUNNING: "RUNNING", SUCCEEDED: "SUCCESSFUL"}  # every other state is FAILED


class SnakepitBackend(api.BaseTaskBackend):  # type: ignore[misc]  # the base comes from one of two packages
    """Runs tasks on warm workers. `QUEUES` are pools by name; OPTIONS["pools"] maps a queue to another pool.

    OPTIONS also takes `timeout`, `retry`, `max_attempts`, `backoff` and `retention`, which mean what they mean in
    `jobs.submit`.
    """

    supports_defer = True
    supports_async_task = True
    supports_get_result = True
    supports_priority = True

    def __init__(self, alias: str, params: Mapping[str, Any]) -> None:
        super().__init__(alias, params)
        if unknown := self.options.keys() - set(OPTIONS):
            raise ImproperlyConfigured(
                f'TASKS["{alias}"]["OPTIONS"]: {", ".join(sorted(unknown))} is unknown; there are {", ".join(OPTIONS)}'
            )

    def pool_of(self, queue: str) -> str:
        return str(self.options.get("pools", {}).get(queue, queue))

    def enqueue(self, task: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Store the task as a job. Its message is sent when the surrounding transaction commits."""
        self.validate_task(task)
        result = _result(task, self.alias, args, kwargs)
        # The worker finds the job by this key: the job's id does not exist before the row does.
        key = secrets.token_hex(16)
        arguments = {
            "task": task.module_path, "args": result.args, "kwargs": result.kwargs, "backend": self.alias, "key": key,
        }  # fmt: skip
        options = {name: value for name, value in self.options.items() if name != "pools"}
        options |= {"priority": task.priority, "run_after": task.run_after}
        prepared = submission.prepare(self.pool_of(task.queue_name), COMMAND, arguments, key, options)

        def stored(job: Job) -> None:
            _set(result, id=str(job.pk), enqueued_at=job.created_at)
            # Before the job is sent: the task may start a moment later.
            api.task_enqueued.send(type(self), task_result=result)

        job = submission.enqueue(*prepared, stored=stored)
        if job.state != QUEUED:  # eager tasks have run by now
            _fill(result, job)
        return result

    async def aenqueue(self, task: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        return await sync_to_async(self.enqueue, thread_sensitive=True)(task, args, kwargs)

    def get_result(self, result_id: str) -> Any:
        """Read the result of a task by its id, which is the id of its job."""
        try:
            job = Job.objects.using(schema.alias()).get(pk=uuid.UUID(str(result_id)), command=COMMAND)
            return self.result_of(job)
        except (Job.DoesNotExist, ValueError) as error:
            raise api.TaskResultDoesNotExist(result_id) from error
        except _NoTask as error:
            raise api.TaskResultDoesNotExist(f"{result_id}: {error}") from error

    def result_of(self, job: Job) -> Any:
        """The result as the row has it now. Raises ValueError if the job is no task of this backend."""
        stored = job.arguments
        if not isinstance(stored, dict) or stored.get("backend") != self.alias:
            raise ValueError("not a task of this backend")
        task = find_task(stored.get("task"))
        task = task.using(priority=job.priority, run_after=job.run_after, queue_name=self._queue_of(job.pool, task))
        result = _result(task, self.alias, stored.get("args", ()), stored.get("kwargs", {}))
        _set(result, id=str(job.pk))
        _fill(result, job)
        return result

    def _queue_of(self, pool: str, task: Any) -> str:
        return next((queue for queue in sorted(self.queues) if self.pool_of(queue) == pool), str(task.queue_name))

    def check(self, **_: Any) -> Iterator[checks.CheckMessage]:
        """Check that a pool can run the tasks."""
        where = f'TASKS["{self.alias}"]'
        keys = [key for key, path in conf.adapters().items() if path == ADAPTER]
        if not keys:
            yield checks.Error(
                f"{where}: no adapter runs Django's tasks.",
                hint=f'Add SNAKEPIT["ADAPTERS"] = {{"django": "{ADAPTER}"}}, and a pool with this adapter.',
                id="snakepit.E007",
            )
        if "DJANGO_SETTINGS_MODULE" not in conf.current().worker_env:
            yield checks.Warning(
                f"{where}: workers do not get the variable DJANGO_SETTINGS_MODULE, so tasks cannot load the settings.",
                hint='Add it to SNAKEPIT["WORKER_ENV"], with the other variables that the settings read.',
                id="snakepit.W006",
            )
        pools = {spec.name: spec for spec in conf.pool_specs()}
        for queue in sorted(self.queues):
            spec = pools.get(self.pool_of(queue))
            if keys and spec is not None and spec.adapter not in keys:
                yield checks.Error(
                    f"{where}: the pool {spec.name} of the queue {queue} has the adapter {spec.adapter}.",
                    hint=f"Give the pool the adapter {keys[0]}, or map the queue to another pool in OPTIONS['pools'].",
                    id="snakepit.E008",
                )


class _NoTask(Exception):
    """The path of a stored task names no task any more."""


def find_task(path: Any) -> Any:
    """The task at a path that a row stores. A row makes no module be imported that belongs to no installed app."""
    module, _, name = str(path).rpartition(".")
    if module not in sys.modules and apps.get_containing_app_config(module):
        with contextlib.suppress(ImportError):
            importlib.import_module(module)
    found = getattr(sys.modules.get(module), name, None)
    if not isinstance(found, api.Task):
        raise _NoTask(f"{path} is no task of this project")
    return found


def _result(task: Any, alias: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    return api.TaskResult(
        task=task, id="", status=api.TaskResultStatus.READY, enqueued_at=None, started_at=None, finished_at=None,
        last_attempted_at=None, args=list(args), kwargs=dict(kwargs), backend=alias, errors=[], worker_ids=[],
    )  # fmt: skip


def _set(result: Any, **fields: Any) -> None:
    for name, value in fields.items():
        object.__setattr__(result, name, value)  # the dataclass is frozen; Django's own backends do the same


def _fill(result: Any, job: Job) -> None:
    tries = list(job.tries.order_by("number"))
    status = STATUS.get(job.state, "FAILED")
    first: datetime | None = tries[0].started_at if tries else None
    _set(
        result,
        status=api.TaskResultStatus[status],
        enqueued_at=job.created_at,
        started_at=first,
        last_attempted_at=job.started_at,
        finished_at=job.finished_at or (utc_now() if status == "FAILED" else None),
        worker_ids=[one.worker or one.claimed_by for one in tries],
        errors=[_error(job.error)] if status == "FAILED" else [],
        _return_value=job.result if status == "SUCCESSFUL" else None,
    )


def _error(stored: Any) -> Any:
    """What ended the job: the exception of the task, or the error of the call."""
    error = stored if isinstance(stored, dict) else {}
    details = error.get("details") or {}
    name = str(details.get("type") or "")
    if error.get("code") != errors.AdapterError.code or not name:
        kind = errors.ERRORS.get(str(error.get("code")), errors.BrokerError)
        name = f"{kind.__module__}.{kind.__qualname__}"
    path = name if "." in name else f"builtins.{name}"
    return api.TaskError(
        exception_class_path=path, traceback=str(details.get("traceback") or error.get("message") or "")
    )
