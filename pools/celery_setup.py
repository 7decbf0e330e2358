"""Adds Snakepit to a project's Celery app: its tasks, its beat schedule and the message transport of `snakepit up`.

    app = Celery("shop")
    app.config_from_object("django.conf:settings", namespace="CELERY")
    app.autodiscover_tasks()
    configure_celery(app)

Everything else in the app's configuration stays as the project has it.

SNAKEPIT_CELERY_URL  any transport, such as filesystem:// (messages are in the state directory)
SNAKEPIT_REDIS_URL   redis://host/0, rediss://... or redis+socket:///path
                     [the one of a running `snakepit up` in the same state directory]
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from snakepit.pools import conf
from snakepit.pools.beat_schedule import BeatSchedule

TASKS = "snakepit.pools"  # the package with the module `tasks`
PRUNE_INTERVAL = 600.0  # seconds
ROLLUP_INTERVAL = 300.0
LINES = "from snakepit import configure_celery; configure_celery(app)"


def configure_celery(app: Any) -> None:
    """Add the tasks of jobs and of the lifecycle clock to a Celery app, and the entries that beat needs.

    Call it once, in the module that creates the app. The call imports no task and reads no setting: Celery does both
    when the app is first used. An entry of the project for one of our tasks wins over ours. django-celery-beat's
    DatabaseScheduler copies the entries into its tables when beat starts.
    """
    app.autodiscover_tasks([TASKS])
    if app.configured:
        _add(app)
    else:
        app.on_after_configure.connect(_add, weak=False, dispatch_uid="snakepit.configure_celery")


def beat_schedule() -> dict[str, dict[str, Any]]:
    """The entries of beat. A tick expires when the next one is due."""
    return {
        task: {"task": task, "schedule": BeatSchedule(seconds), "options": {"expires": seconds}}
        for task, seconds in intervals().items()
    }


def intervals() -> dict[str, float]:
    """Seconds between two ticks, by task. One at least: django-celery-beat stores whole seconds, and 0 would flood."""
    settings = conf.current()
    return {
        "snakepit.sweep": settings.sweep_interval,
        "snakepit.reconcile": max(1.0, settings.reconcile_interval),
        "snakepit.rollup": ROLLUP_INTERVAL,
        "snakepit.prune": PRUNE_INTERVAL,
    }


def find_missing_entries(scheduled: Mapping[str, Any]) -> Iterator[str]:
    """The tasks that a beat schedule lacks; without them nothing recycles, repairs or prunes on time."""
    known = {entry.get("task") for entry in scheduled.values()}
    yield from (task for task in beat_schedule() if task not in known)


def _add(sender: Any, **_: Any) -> None:
    present = dict(sender.conf.beat_schedule or {})
    missing = set(find_missing_entries(present))
    ours = {name: entry for name, entry in beat_schedule().items() if name in missing}
    sender.conf.beat_schedule = {**ours, **present}
    if url := given_url():
        urls = dict.fromkeys(("broker_url", "broker_read_url", "broker_write_url"), url)
        sender.conf.update(broker_transport_options=transport_options(url), **urls)


def given_url() -> str:
    """The message transport that the environment or a running `snakepit up` gives; empty: the project's own."""
    given = os.environ.get("SNAKEPIT_CELERY_URL") or os.environ.get("SNAKEPIT_REDIS_URL")
    return given or _chosen_by_up()


def state_dir() -> Path:
    """The directory of what `snakepit up` keeps: STATE_DIR of the settings, else `.snakepit` in the project."""
    from django.conf import settings

    return Path(getattr(settings, "STATE_DIR", None) or conf.base_dir() / ".snakepit")


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
        folders = {"data_folder_in": "messages", "data_folder_out": "messages", "control_folder": "control"}
        paths = {option: state_dir() / "celery" / name for option, name in folders.items()}
        for path in paths.values():
            path.mkdir(mode=0o700, parents=True, exist_ok=True)  # the transport does not create them
        return {"polling_interval": 0.1, **{option: str(path) for option, path in paths.items()}}
    return {}


def _chosen_by_up() -> str:
    """The transport of the `snakepit up` in this state directory, for shells beside it."""
    try:
        return (state_dir() / "celery-url").read_text().strip()
    except OSError:
        return ""
