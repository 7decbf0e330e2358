"""Whether the message transport of jobs answers: asked in the background, so that no page waits for it.

page ─▶ sample() ─▶ the last answer
          └▶ a thread, at most one in EVERY seconds ─▶ BoundedThread ─▶ the transport
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import Any

from snakepit.pools.jobs import messages
from snakepit.pools.jobs.bounded_thread import BoundedThread

EVERY = 5.0  # seconds between two questions
PATIENCE = 2.0  # seconds for the transport to answer

asker = BoundedThread("snakepit-transport", "message transport", PATIENCE)


@dataclass(frozen=True, slots=True)
class TransportTrouble:
    """Why the transport does not answer, and the time at which this process first found that."""

    why: str
    since: float


class TransportWatch:
    """Safe to use from every thread."""

    def __init__(self) -> None:
        self._trouble: TransportTrouble | None = None
        self._thread: threading.Thread | None = None
        self._asked = float("-inf")

    def sample(self) -> TransportTrouble | None:
        """The last answer. Asks again in the background."""
        last = self._trouble
        asking = self._thread is not None and self._thread.is_alive()
        if not asking and time.monotonic() - self._asked >= EVERY:
            self._asked = time.monotonic()
            self._thread = threading.Thread(target=self._note, name="snakepit-transport-watch", daemon=True)
            self._thread.start()
        return last

    def wait(self, seconds: float) -> None:
        """Wait for the question that runs."""
        if self._thread is not None:
            self._thread.join(seconds)

    def _note(self) -> None:
        why = ask_transport()
        since = self._trouble.since if self._trouble else time.time()
        self._trouble = TransportTrouble(why, since) if why else None


def ask_transport() -> str:
    """Why the transport does not answer; empty: it answers, or there is none. Raises nothing."""
    try:
        return str(asker.run(_ask))
    except Exception as error:  # each transport has errors of its own
        text = " ".join(str(error).split())
        return text or type(error).__name__


def _ask() -> str:
    app = messages.celery_app()
    if app.conf.task_always_eager or not messages.is_known(app):
        return ""
    connection = app.connection_for_write()
    if str(connection.transport_cls).partition(":")[0] == "filesystem":
        return ""
    ping(connection, PATIENCE)
    return ""


def ping(connection: Any, patience: float) -> None:
    """Connect and close. `patience` bounds the connecting alone: a frozen server accepts it and answers nothing."""
    with connection:
        connection.ensure_connection(max_retries=0, timeout=patience)
        client = getattr(connection.default_channel, "client", None)
        if client is not None and hasattr(client, "ping"):  # Redis
            client.ping()
