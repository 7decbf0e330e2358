"""Whether gevent or eventlet has patched this process. The client cannot run in it.

Both replace threads and sockets by greenlets of one thread and remove `select.epoll`. A call would wait in that thread
for an answer that only the same thread can read. Django's asynchronous views do not work there either.
"""

from __future__ import annotations

import logging
import select
import sys
from pathlib import Path
from typing import Any

logger = logging.getLogger("snakepit")
NAMES = ("gevent", "eventlet")
PATCHED = (
    "gevent or eventlet has patched this process, and the client's event loop cannot run in it. Use threads: "
    "gunicorn -k gthread, or celery -P threads."
)


def is_patched() -> bool:
    """Whether threads or `select` of this process are those of gevent or eventlet."""
    if sys.platform == "linux" and not hasattr(select, "epoll"):
        return True
    gevent: Any = sys.modules.get("gevent.monkey")
    eventlet: Any = sys.modules.get("eventlet.patcher")
    if gevent and gevent.is_module_patched("thread"):
        return True
    return bool(eventlet and eventlet.is_monkey_patched("thread"))


def log_if_patched() -> None:
    """Log the reason once, now or when gevent patches this process. A web server runs no system check at its start."""
    if "celery" in Path(sys.argv[0]).parts[-2:]:
        return  # it logs the reason with its queues (jobs/messages.py)
    if is_patched():
        _log()
    elif "gevent.monkey" in sys.modules:  # gunicorn -k gevent --preload patches after the fork
        from gevent import events

        def on_event(event: Any) -> None:
            if isinstance(event, events.GeventDidPatchAllEvent):
                _log()

        events.subscribers.append(on_event)


def _log() -> None:
    logger.error("no call can run in this process: %s", PATCHED)
