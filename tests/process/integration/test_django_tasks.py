"""The task backend of Django: what is enqueued becomes a job, and what the row says becomes the task's result."""

from __future__ import annotations

import importlib
import logging
import sys
import threading
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.utils import timezone

from snakepit.pools import conf
from snakepit.pools.django_tasks import api
from snakepit.pools.django_tasks.adapter import DjangoTasks
from snakepit.pools.django_tasks.backend import ADAPTER, SnakepitBackend
from snakepit.pools.django_tasks.execution import execute
from snakepit.pools.jobs import submit
from snakepit.pools.models import Job, JobAttempt
from snakepit.pools.models.moments import utc_now
from snakepit.testing import override_pools

pytestmark = pytest.mark.django_db

BACKEND = "snakepit.pools.django_tasks.backend.SnakepitBackend"
SNAKEPIT = {
    "ADAPTERS": {"django": ADAPTER},
    "POOLS": {"models": {"adapter": "django"}, "mail": {"adapter": "django"}},
    "WORKER_ENV": ["DJANGO_SETTINGS_MODULE"],
}
TASKS = {
    "default": {
        "BACKEND": BACKEND,
        "QUEUES": ["default", "mail"],
        "OPTIONS": {"pools": {"default": "models"}, "retry": "safe", "timeout": 5},
    }
}


@pytest.fixture
def tasks(settings: Any) -> Iterator[Any]:
    """The module with the tasks, under settings that have the backend."""
    settings.SNAKEPIT = {**settings.SNAKEPIT, **SNAKEPIT}
    settings.TASKS = TASKS
    yield importlib.import_module("tests.task_functions")
    sys.modules.pop("tests.task_functions", None)


def job_of(result: Any) -> Job:
    return Job.objects.get(pk=result.id)


def test_an_enqueued_task_is_a_job_of_its_queues_pool(tasks: Any) -> None:
    result = tasks.add.enqueue(2, second=3)
    job = job_of(result)
    assert (job.pool, job.command, job.priority, job.retry, job.timeout) == ("models", "run", 0, "safe", 5.0)
    assert (job.arguments["task"], job.arguments["args"]) == ("tests.task_functions.add", [2])
    assert (result.status, result.enqueued_at, result.is_finished) == ("READY", job.created_at, False)


def test_priority_time_and_queue_go_with_the_task(tasks: Any) -> None:
    at = timezone.now() + timedelta(hours=1)
    job = job_of(tasks.attempt.using(priority=-3, run_after=at, queue_name="mail").enqueue())
    assert (job.pool, job.priority, job.run_after) == ("mail", -3, at)
    found = tasks.attempt.get_result(job.pk)
    assert (found.task.priority, found.task.run_after, found.task.queue_name) == (-3, at, "mail")


def test_the_async_way_stores_the_same(tasks: Any) -> None:
    from asgiref.sync import async_to_sync

    assert job_of(async_to_sync(tasks.later.aenqueue)({"a": [1]})).arguments["args"] == [{"a": [1]}]


@pytest.mark.parametrize("value", [object(), {1, 2}], ids=["object", "set"])
def test_a_value_that_json_cannot_hold_is_refused_before_anything_is_stored(tasks: Any, value: Any) -> None:
    with pytest.raises(TypeError):
        tasks.later.enqueue(value)
    assert not Job.objects.exists()


def test_a_queue_or_function_that_cannot_run_is_refused(tasks: Any) -> None:
    with pytest.raises(Exception, match="Queue 'nowhere' is not valid"):
        tasks.add.using(queue_name="nowhere")
    with pytest.raises(Exception, match="module level"):
        tasks.add.using().__class__(
            func=lambda: None, backend="default", priority=0, queue_name="default", run_after=None
        )


def test_the_row_is_the_result(tasks: Any) -> None:
    result = tasks.add.enqueue(2)
    job = job_of(result)
    now = utc_now()
    Job.objects.filter(pk=job.pk).move("running", attempts=1, lease_until=now, claimed_by="c", started_at=now)
    JobAttempt.objects.create(job=job, number=1, claimed_by="c", worker="models-1", started_at=now)
    result.refresh()
    assert (result.status, result.started_at, result.last_attempted_at) == ("RUNNING", now, now)
    assert (result.worker_ids, result.attempts) == (["models-1"], 1)
    done = {"lease_until": None, "claimed_by": "", "finished_at": now, "expires_at": now}
    Job.objects.filter(pk=job.pk).move("succeeded", result=3, **done)
    result.refresh()
    assert (result.status, result.return_value, result.finished_at) == ("SUCCESSFUL", 3, now)


@pytest.mark.parametrize(
    ("error", "path", "traceback"),
    [
        (
            {
                "code": "adapter_error",
                "message": "KeyError: 'x'",
                "details": {"type": "KeyError", "traceback": "Trace"},
            },
            "builtins.KeyError",
            "Trace",
        ),
        (
            {"code": "adapter_error", "message": "m", "details": {"type": "decimal.InvalidOperation"}},
            "decimal.InvalidOperation",
            "m",
        ),
        (
            {"code": "deadline_exceeded", "message": "too late", "details": {}},
            "snakepit.pools.broker.errors.DeadlineExceeded",
            "too late",
        ),
        (None, "snakepit.pools.broker.errors.BrokerError", ""),
    ],
)
def test_a_failure_names_its_exception(tasks: Any, error: Any, path: str, traceback: str) -> None:
    result = tasks.add.enqueue(2)
    now = utc_now()
    Job.objects.filter(pk=result.id).move("cancelled", error=error, finished_at=now, expires_at=now)
    result.refresh()
    assert result.status == "FAILED"
    (found,) = result.errors
    assert (found.exception_class_path, found.traceback) == (path, traceback)
    assert issubclass(found.exception_class, Exception)


@pytest.mark.parametrize("ident", ["nonsense", "0190b0c6-0000-7000-8000-000000000000"])
def test_an_unknown_id_is_no_result(tasks: Any, ident: str) -> None:
    with pytest.raises(api.TaskResultDoesNotExist):
        tasks.add.get_result(ident)


@pytest.mark.parametrize("task", ["tests.task_functions.plain", "antigravity.Task", "tests.task_functions", "", None])
def test_a_row_that_names_no_task_is_no_result_and_imports_nothing(tasks: Any, task: Any) -> None:
    arguments = {"task": task, "args": [], "kwargs": {}, "backend": "default", "key": "k"}
    job = submit("models", "run", arguments)
    with pytest.raises(api.TaskResultDoesNotExist):
        tasks.add.get_result(job.pk)
    assert "antigravity" not in sys.modules


def run(result: Any) -> Any:
    """What the adapter does in a worker."""
    stored = job_of(result).arguments
    return execute(stored["task"], stored["args"], stored["kwargs"], stored["backend"], stored["key"])


def test_a_worker_runs_plain_and_async_tasks_with_their_context_and_signals(tasks: Any) -> None:
    seen = []

    def note(sender: Any, task_result: Any, **_: Any) -> None:
        seen.append((task_result.task.name, str(task_result.status)))

    api.task_started.connect(note)
    api.task_finished.connect(note)
    try:
        assert run(tasks.add.enqueue(2, second=3)) == 5
        assert run(tasks.later.enqueue([1])) == [1]
        assert run(tasks.attempt.enqueue()) == 0
        with pytest.raises(KeyError):
            run(tasks.fails.enqueue())
    finally:
        api.task_started.disconnect(note)
        api.task_finished.disconnect(note)
    assert seen[::2] == [(name, "READY") for name in ("add", "later", "attempt", "fails")]
    assert seen[1::2] == [
        ("add", "SUCCESSFUL"),
        ("later", "SUCCESSFUL"),
        ("attempt", "SUCCESSFUL"),
        ("fails", "FAILED"),
    ]


@pytest.mark.parametrize("path", ["os.system", "tests.task_functions.plain", "antigravity.Task"])
def test_a_worker_runs_only_tasks_that_it_has_loaded(tasks: Any, path: str) -> None:
    with pytest.raises(LookupError, match="is no task of this worker"):
        execute(path, [], {}, "default", "key")
    assert "antigravity" not in sys.modules


@pytest.mark.django_db(transaction=True)
def test_a_task_in_the_process_of_a_test_logs_each_step_in_order(
    tasks: Any,
) -> None:
    """As with Django's own backend that runs tasks at once. The adapter must not configure logging a second time."""
    logger = logging.getLogger(api.PACKAGE)
    seen = []
    handler = logging.Handler()
    handler.emit = lambda record: seen.append(record.getMessage().rpartition(" ")[2])  # type: ignore[method-assign]
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    try:
        with override_pools({"models": {"adapter": "django", "size": 1}}):
            result = tasks.add.enqueue(2, second=3)
    finally:
        logger.removeHandler(handler)
        logger.setLevel(logging.NOTSET)
    assert (result.status, result.return_value) == ("SUCCESSFUL", 5)
    assert seen == ["backend=default", "state=RUNNING", "state=SUCCESSFUL"]


def test_a_preload_where_django_is_set_up_leaves_the_handlers_of_its_loggers() -> None:
    logger, handler = logging.getLogger("django.of_a_test"), logging.NullHandler()
    logger.addHandler(handler)
    try:
        loading = threading.Thread(target=DjangoTasks.preload)  # it closes the connections of its thread
        loading.start()
        loading.join(60)
        assert logger.handlers == [handler]
    finally:
        logger.removeHandler(handler)


def test_modules_of_the_pool_must_belong_to_an_app() -> None:
    DjangoTasks(modules=["snakepit.pools.tasks"])
    with pytest.raises(ValueError, match="antigravity is in no app"):
        DjangoTasks(modules=["antigravity"])


def ids(alias: str = "default") -> list[str]:
    return [one.id for one in SnakepitBackend(alias, TASKS["default"]).check()]


def test_checks_name_a_missing_adapter_a_wrong_pool_and_a_missing_variable(tasks: Any, settings: Any) -> None:
    assert ids() == []
    settings.SNAKEPIT = {**settings.SNAKEPIT, "WORKER_ENV": []}
    assert ids() == ["snakepit.W006"]
    other = {"adapter": "digits"}
    settings.SNAKEPIT = {
        **SNAKEPIT, "ADAPTERS": {"django": ADAPTER, "digits": "snakepit.examples.digits.Digits"},
        "POOLS": {"models": other, "mail": {"adapter": "django"}},
    }  # fmt: skip
    assert ids() == ["snakepit.E008"]
    settings.SNAKEPIT = {"WORKER_ENV": ["DJANGO_SETTINGS_MODULE"]}
    assert ids() == ["snakepit.E007"]
    assert conf.adapters() == {}


def test_an_unknown_option_is_refused_by_its_name() -> None:
    with pytest.raises(
        ImproperlyConfigured, match=r'TASKS\["default"\]\["OPTIONS"\]: prio is unknown; there are pools'
    ):
        SnakepitBackend("default", {"OPTIONS": {"prio": 1}})
