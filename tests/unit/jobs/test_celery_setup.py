"""One line makes a project's Celery app run jobs, and leaves the rest of its configuration alone."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from celery import Celery
from django.db import connections

import snakepit
from snakepit.pools.celery_setup import beat_schedule, find_missing_entries, given_url
from snakepit.pools.jobs.messages import TASK

TICKS = {"snakepit.sweep", "snakepit.reconcile", "snakepit.rollup", "snakepit.prune"}


@pytest.fixture(autouse=True)
def no_transport_given(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("SNAKEPIT_CELERY_URL", "SNAKEPIT_REDIS_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("snakepit.pools.celery_setup.state_dir", lambda: tmp_path)


@pytest.fixture(autouse=True)
def sqlite_has_json(monkeypatch: pytest.MonkeyPatch) -> None:
    """Celery checks the models with the tasks. Django 6.1 then asks SQLite for JSON, if no test has asked before."""
    monkeypatch.setitem(vars(connections["default"].features), "supports_json_field", True)


def project_app(**settings: Any) -> Celery:
    """An app as a project has it: the settings come from Django's, with the prefix CELERY."""
    app = Celery("shop", set_as_current=False)
    source = SimpleNamespace(**{f"CELERY_{name.upper()}": value for name, value in settings.items()})
    app.config_from_object(source, namespace="CELERY")
    snakepit.configure_celery(app)
    return app


def test_the_tasks_and_the_entries_of_beat_are_added() -> None:
    app = project_app(broker_url="redis://cache/3")
    assert set(app.conf.beat_schedule) == TICKS
    assert list(find_missing_entries(app.conf.beat_schedule)) == []
    app.loader.import_default_modules()
    assert {TASK, *TICKS} <= set(app.tasks)


def test_the_configuration_of_the_project_stays_as_it_is() -> None:
    mail = {"task": "shop.mail", "schedule": 60.0}
    options = {"visibility_timeout": 60}
    app = project_app(
        broker_url="amqp://queue", broker_transport_options=options, beat_schedule={"mail": mail}, task_acks_late=False
    )
    assert app.conf.broker_url == "amqp://queue"
    assert app.conf.broker_transport_options == options
    assert app.conf.beat_schedule["mail"] == mail
    assert set(app.conf.beat_schedule) == {"mail", *TICKS}
    assert not app.conf.task_acks_late
    assert app.conf.task_ignore_result is False


def test_an_entry_of_the_project_for_the_same_task_wins() -> None:
    own = {"task": "snakepit.prune", "schedule": 3600.0}
    schedule = project_app(beat_schedule={"nightly": own}).conf.beat_schedule
    assert schedule["nightly"] == own
    assert set(schedule) == {"nightly", *TICKS - {"snakepit.prune"}}


@pytest.mark.parametrize(
    ("entry", "expires"), [({}, True), ({"own": {"task": "snakepit.prune", "schedule": 60.0}}, False)]
)
def test_a_tick_expires_when_the_next_one_is_due_by_whatever_scheduler(entry: dict[str, Any], expires: bool) -> None:
    app = project_app(broker_url="memory://", beat_schedule=entry)
    app.loader.import_default_modules()
    app.tasks["snakepit.prune"].apply_async(queue="ticks")  # django-celery-beat sends no expiry
    with app.connection_for_read() as connection:
        message = connection.SimpleQueue("ticks").get(timeout=10)
        message.ack()
    assert bool(message.headers["expires"]) == expires


def test_no_entry_has_an_interval_that_django_celery_beat_would_store_as_zero(settings: Any) -> None:
    settings.SNAKEPIT = {"RECONCILE_INTERVAL": 0.25}
    assert all(entry["schedule"].seconds >= 1 for entry in beat_schedule().values())


def test_an_app_that_is_configured_already_gets_them_at_once() -> None:
    app = Celery("shop", set_as_current=False)
    assert app.conf.timezone is None  # reading a key loads the configuration
    snakepit.configure_celery(app)
    assert set(app.conf.beat_schedule) == TICKS


@pytest.mark.parametrize("name", ["SNAKEPIT_CELERY_URL", "SNAKEPIT_REDIS_URL"])
def test_a_transport_of_the_environment_replaces_the_projects(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "redis+socket:///run/valkey.sock")
    app = project_app(
        broker_url="amqp://queue", broker_write_url="amqp://other", broker_transport_options={"ssl": True}
    )
    for url in (app.conf.broker_url, app.conf.broker_read_url, app.conf.broker_write_url):
        assert url == "redis+socket:///run/valkey.sock"
    assert app.conf.broker_transport_options["socket_timeout"] == 30
    assert "ssl" not in app.conf.broker_transport_options


def test_a_shell_beside_snakepit_up_uses_its_transport(tmp_path: Path) -> None:
    assert given_url() == ""
    (tmp_path / "celery-url").write_text("filesystem://\n")
    app = project_app()
    assert app.conf.broker_url == "filesystem://"
    assert Path(app.conf.broker_transport_options["data_folder_in"]) == tmp_path / "celery/messages"
