"""Tasks of Django in a new project: enqueued in a shell, run on a warm pool, finished although a worker is killed."""

from __future__ import annotations

import importlib.util
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.brokers import ROOT
from tests.process.acceptance.test_host_project import Project, own_environment

NATIVE = importlib.util.find_spec("django.tasks") is not None
PACKAGE = "django.tasks" if NATIVE else "django_tasks"
SETTINGS = """
INSTALLED_APPS += ["ninja", "snakepit.pools", "shop"{more}]
SNAKEPIT = {{
    "ADAPTERS": {{"django": "snakepit.pools.django_tasks.adapter.DjangoTasks"}},
    "POOLS": {{"models": {{"adapter": "django", "size": 1, "queue_timeout": 120.0}}}},
    "WORKER_ENV": ["DJANGO_SETTINGS_MODULE"],
}}
TASKS = {{"default": {{
    "BACKEND": "snakepit.pools.django_tasks.backend.SnakepitBackend",
    "QUEUES": ["default"],
    "OPTIONS": {{"pools": {{"default": "models"}}}},
}}}}
DATABASES["default"]["OPTIONS"] = {{
    "transaction_mode": "IMMEDIATE",
    "timeout": 20,
    "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
}}
"""
TASKS = """
import os
import time
from pathlib import Path

from {package} import task

from snakepit.examples.digits import reference_model, scans

MODEL = reference_model()


@task
def classify(index):
    return int(MODEL.predict(scans()[0][index : index + 1])[0])


@task(takes_context=True)
def slow(context, mark, index):
    Path(mark).write_text(str(os.getpid()))  # the test kills the worker of the first attempt
    while context.attempt == 1:
        time.sleep(0.1)
    return [context.attempt, classify.func(index)]


@task
async def region(place):
    return place["region"]
"""
CELERY = """
import os

from celery import Celery
from snakepit import configure_celery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shop.settings")
app = Celery("shop")
configure_celery(app)
"""
SHELL = """
import os, signal, time
from pathlib import Path
from shop.tasks import classify, region, slow

def wait(result):
    while not result.is_finished:
        time.sleep(0.05)
        result.refresh()
    return result

mark = Path({mark!r})
found = {{"plain": wait(classify.enqueue(7)).return_value}}
killed = slow.enqueue(str(mark), 7)
while not mark.exists() or not mark.read_text():
    time.sleep(0.05)
os.kill(int(mark.read_text()), signal.SIGKILL)
found["killed"] = wait(killed).return_value
found["attempts"] = killed.attempts
failed = wait(region.enqueue({{}}))
found["error"] = failed.errors[0].exception_class_path
found["traceback"] = failed.errors[0].traceback.strip().splitlines()[-1]
found["found"] = classify.get_result(classify.enqueue(3).id).task.name
import json
print(json.dumps(found))
"""


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Project]:
    with tempfile.TemporaryDirectory(prefix="sp-", dir="/tmp") as short:  # the path of a socket has to be short
        project = Project(tmp_path, own_environment() | {"TMPDIR": short, "PYTHONPATH": str(ROOT)})
        project.fine("-m", "django", "startproject", "shop", ".")
        with (tmp_path / "shop/settings.py").open("a") as settings:
            settings.write(SETTINGS.format(more="" if NATIVE else ', "django_tasks"'))
        (tmp_path / "shop/tasks.py").write_text(TASKS.format(package=PACKAGE))
        (tmp_path / "shop/celery.py").write_text(CELERY)
        yield project


def test_a_task_answers_from_a_warm_model_also_while_its_worker_is_killed(shop: Project) -> None:
    shop.fine("manage.py", "check", "--fail-level", "WARNING")
    with shop.program("-m", "snakepit.pools.cli", "up", "--no-web", until="snakepit.pools.cli status"):
        printed = shop.fine("manage.py", "shell", "-c", SHELL.format(mark=str(shop.directory / "mark")))
    found = json.loads(printed.splitlines()[-1])
    assert found == {
        "plain": 7,
        "killed": [2, 7],
        "attempts": 2,
        "error": "builtins.KeyError",
        "traceback": "KeyError: 'region'",
        "found": "classify",
    }
