"""The site's Celery app. `snakepit.pools.celery_setup` reads the variables that choose its message transport."""

from __future__ import annotations

import os
from typing import Any

from celery import Celery
from celery.signals import beat_init, celeryd_init

from snakepit.pools.adapters.processes.hiding import hide
from snakepit.pools.celery_setup import configure_celery, transport_options

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "snakepit.site.settings")
DEFAULT_URL = "redis://localhost:6379/0"  # where neither the environment nor a running `snakepit up` gives another


def configuration() -> dict[str, Any]:
    return {
        "broker_url": DEFAULT_URL,
        "broker_transport_options": transport_options(DEFAULT_URL),
        "broker_connection_retry_on_startup": True,
        # No limit. Celery's default of 100 attempts would end every Celery worker after an outage of fifty minutes.
        "broker_connection_max_retries": None,
        # Only JSON: unpickling a message can run arbitrary code.
        "accept_content": ["json"],
        "result_accept_content": ["json"],
        "task_serializer": "json",
        "result_serializer": "json",
        "task_ignore_result": True,
        "task_track_started": False,
        "worker_prefetch_multiplier": 1,
        "worker_soft_shutdown_timeout": 30,
        # Threads cannot be cancelled: Celery would try, and log a traceback for each. A message that is delivered
        # again while its job runs finds nothing to do.
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        "worker_hijack_root_logger": False,
        "timezone": "UTC",
    }


def hide_process(**_: Any) -> None:
    """Hide a Celery worker or beat from adapters that run as the same user; not a program that only sends messages."""
    hide()


celeryd_init.connect(hide_process)
beat_init.connect(hide_process)
app = Celery("snakepit")
app.conf.update(configuration())
configure_celery(app)
