"""The site's settings with pools of the test adapter and short times, for Celery workers that are killed."""

from __future__ import annotations

import json
import os

from snakepit.pools.client import connection
from snakepit.site.settings import *  # noqa: F403
from snakepit.site.settings import BASE_DIR, INSTALLED_APPS
from snakepit.workers.transport import grpclib_internals

# For brokers that take their pools from the database.
RECENT = {"recent": path} if (path := os.environ.get("SNAKEPIT_TEST_RECENT")) else {}
LEASE = float(os.environ.get("SNAKEPIT_TEST_LEASE", "15"))
LIMITS = json.loads(os.environ.get("SNAKEPIT_TEST_LIMITS", "[]"))

if os.environ.get("SNAKEPIT_TEST_CELERY_BEAT"):
    INSTALLED_APPS = [*INSTALLED_APPS, "django_celery_beat"]

SNAKEPIT = {
    "RUNTIME_DIR": os.environ.get("SNAKEPIT_RUNTIME_DIR", ""),
    "WORKER_PATH": [str(BASE_DIR)],
    "ADAPTERS": {"everything": "tests.everything.Everything"},
    # Calls wait, and cancelled commands end by themselves, also on a machine that stops for some seconds.
    "POOLS": {
        "pool": {
            "adapter": "everything",
            "size": 2,
            "args": RECENT,
            "job_limits": LIMITS,
            "queue_timeout": 120.0,
            "call_timeout": 600.0,
            "cancel_grace": 60.0,
        }
    },
    "CELERY_APP": "snakepit.site.celery",
    "RECONCILE_INTERVAL": 1.0,
    "JOBS_LEASE": LEASE,  # a living attempt renews in time on a machine that stops for some seconds, too
    "JOBS_RESEND": 3.0,
    "JOBS_BACKOFF": 0.2,
}

if seconds := os.environ.get("SNAKEPIT_TEST_KEEPALIVE"):  # a frozen broker is given up sooner than after 30 s
    grpclib_internals.KEEPALIVE.update({"_keepalive_time": float(seconds), "_keepalive_timeout": float(seconds)})
    connection.CONFIGURATION = grpclib_internals.configuration(connection.WINDOW, keepalive=True)
