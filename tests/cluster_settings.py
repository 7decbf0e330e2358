"""The site's settings for several nodes: one pool everywhere, and one where gpu=yes."""

from __future__ import annotations

import os

from snakepit.site.settings import *  # noqa: F403
from snakepit.site.settings import BASE_DIR

SNAKEPIT = {
    "RUNTIME_DIR": os.environ.get("SNAKEPIT_RUNTIME_DIR", ""),
    "WORKER_PATH": [str(BASE_DIR)],
    "ADAPTERS": {"everything": "tests.everything.Everything"},
    "POOLS": {
        "pool": {"adapter": "everything", "size": 1},
        "gpu": {"adapter": "everything", "size": 1, "nodes": ["gpu=yes"]},
    },
    "CELERY_APP": "snakepit.site.celery",
}
