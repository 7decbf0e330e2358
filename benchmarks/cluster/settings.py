"""The settings of all hosts: what differs between them stands in their environment.

The pool `work` lives everywhere, `gpu` on nodes with gpu=yes. With SNAKEPIT_DEMO=1 there are also the demo's pools.
"""

from __future__ import annotations

from typing import Any

from benchmarks.cluster.network import CLIENT, ROOT
from snakepit.site.settings import *  # noqa: F403
from snakepit.site.settings import SNAKEPIT as SITE

PLACED: dict[str, Any] = {"adapter": "placed", "profile": "thread", "threads": 16, "queue_timeout": 15.0}
SNAKEPIT = SITE | {
    "WORKER_PATH": [str(ROOT)],
    "WORKER_ENV": ["SNAKEPIT_NODE_NAME"],
    "ADAPTERS": SITE.get("ADAPTERS", {}) | {"placed": "benchmarks.cluster.adapter.Placed"},
    "POOLS": SITE.get("POOLS", {})
    | {"work": {**PLACED, "size": 2}, "gpu": {**PLACED, "size": 1, "nodes": ["gpu=yes"]}},
    "LISTEN_CERTIFICATES": {CLIENT: {"scopes": ["run", "view", "operate"]}},
    "CELERY_APP": "snakepit.site.celery",
    "RECONCILE_INTERVAL": 1.0,
    "JOBS_LEASE": 5.0,
    "JOBS_RESEND": 3.0,
    "JOBS_BACKOFF": 0.2,
}
