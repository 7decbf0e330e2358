"""The Celery app and its static beat schedule.

SNAKEPIT_CELERY_URL  any transport, such as filesystem:// (messages are in the state directory)
SNAKEPIT_REDIS_URL   redis://host/0, rediss://... or redis+socket:///path
                     [the one of a running `snakepit up`, otherwise redis://localhost:6379/0]
"""

from __future__ import annotations

import os
from typing import Any

from celery import Celery

from snakepit.pools.beat_schedule import BeatSchedule

PRUNE_INTERVAL = 600.0  # seconds
ROLLUP_INTERVAL = 300.0

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "snakepit.site.settings")


def transport_options(url: str) -> dict[str, Any]:
    """The options of the URL's transport. Options of Redis make other transports fail."""
    scheme = url.partition(":")[0]
    if scheme in ("redis", "rediss", "redis+socket", "sentinel"):
        return {
            "global_keyprefix": "snakepit:",
            "visibility_timeout": 3600,
            "unacked_restore_interval": 5,
            "unacked_restore_throttle": 1,
            # Without these, a Celery worker with a half-open connection stays alive but reads no messages.
            "socket_timeout": 30,
            "socket_connect_timeout": 5,
            "socket_keepalive": True,
            "retry_on_timeout": True,
            "health_check_interval": 25,
        }
    if scheme == "filesystem":
        from snakepit.site.settings import STATE_DIR

        folders = {"data_folder_in": "messages", "data_folder_out": "messages", "control_folder": "control"}
        paths = {option: STATE_DIR / "celery" / name for option, name in folders.items()}
        for path in paths.values():
            path.mkdir(mode=0o700, parents=True, exist_ok=True)  # the transport does not create them
        return {"polling_interval": 0.1, **{option: str(path) for option, path in paths.items()}}
    return {}


def chosen_by_up() -> str:
    """The transport of the `snakepit up` in this state directory, for shells beside it."""
    from snakepit.site.settings import STATE_DIR

    try:
        return (STATE_DIR / "celery-url").read_text().strip()
    except OSError:
        return ""


def tick(task: str, interval: float) -> dict[str, Any]:
    """An entry of the beat schedule. A tick expires when the next one is due."""
    return {"task": task, "schedule": BeatSchedule(interval), "options": {"expires": interval}}


def configuration() -> dict[str, Any]:
    from snakepit.pools import conf

    given = os.environ.get("SNAKEPIT_CELERY_URL") or os.environ.get("SNAKEPIT_REDIS_URL")
    url = given or chosen_by_up() or "redis://localhost:6379/0"
    settings = conf.current()
    return {
        "broker_url": url,
        "broker_transport_options": transport_options(url),
        "broker_connection_retry_on_startup": True,
        # No limit. Celery's default of 100 attempts would end every Celery worker after an outage of fifty minutes.
        "broker_connection_max_retries": None,
        # Only JSON: unpickling a message can run arbitrary code.
        "accept_content": ["json"],
        "result_accept_content": ["json"],
        "task_serializer": "json",
        "result_serializer": "json",
        "task_ignore_result": True,
        "task_acks_late": True,
        "task_reject_on_worker_lost": True,
        "task_track_started": False,
        "worker_prefetch_multiplier": 1,
        "worker_soft_shutdown_timeout": 30,
        # Threads cannot be cancelled: Celery would try, and log a traceback for each. A message that is delivered
        # again while its job runs finds nothing to do.
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        "worker_hijack_root_logger": False,
        "timezone": "UTC",
        "beat_schedule": {
            "snakepit.sweep": tick("snakepit.sweep", settings.sweep_interval),
            "snakepit.reconcile": tick("snakepit.reconcile", settings.reconcile_interval),
            "snakepit.rollup": tick("snakepit.rollup", ROLLUP_INTERVAL),
            "snakepit.prune": tick("snakepit.prune", PRUNE_INTERVAL),
        },
    }


app = Celery("snakepit")
app.conf.update(configuration())
app.autodiscover_tasks(["snakepit.pools"])
