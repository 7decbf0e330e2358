"""The page while the database is unavailable: the cause, since when, what still works, and what to do.

It needs no database: no user, no session and no context processor. What still works comes from the broker.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.http import HttpRequest, HttpResponse
from django.template.loader import render_to_string
from django.templatetags.static import static
from django.views.defaults import server_error as default_page

from snakepit.pools.broker.errors import NOT_STARTED, BrokerError, DatabaseUnavailable
from snakepit.pools.web.errors import DATABASE_PAUSE, database_is_away, database_is_full
from snakepit.pools.web.last_status import last_status

SLOW = 0.5  # seconds after which a failed page counts as a wait for a frozen server ...
PAUSE = 3.0  # ... and the pages of so many seconds do not wait for it again
QUIET = 30.0  # seconds without a failure, after which the next one is a new trouble


@dataclass(slots=True)
class _Trouble:
    since: float = 0.0
    newest: float = 0.0


class FrozenDatabase:
    """Remembers a database that let a page wait, so that not each page waits in turn.

    >>> frozen = FrozenDatabase()
    >>> frozen.failed(OSError("timeout"), took=0.01, now=10.0), frozen.error(now=10.1)  # refused at once
    (None, None)
    >>> frozen.failed(OSError("timeout"), took=2.0, now=20.0), frozen.error(now=21.0)
    (None, OSError('timeout'))
    >>> frozen.error(now=26.0), frozen.error(now=26.1)  # one page looks again
    (None, OSError('timeout'))
    >>> frozen.answered(), frozen.error(now=27.0)
    (None, None)
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._error: BaseException | None = None
        self._until = 0.0

    @property
    def lasts(self) -> bool:
        """Whether the last question was in vain."""
        return self._error is not None

    def failed(self, error: BaseException, took: float, now: float) -> None:
        silent = took >= SLOW and not _was_sent(error)
        with self._lock:
            self._error, self._until = error.with_traceback(None) if silent else None, now + PAUSE

    def answered(self) -> None:
        self._error = None

    def error(self, now: float) -> BaseException | None:
        """The error that a page would wait for; None: try."""
        if self._error is None:
            return None
        with self._lock:
            if now >= self._until:
                self._until = now + PAUSE
                return None
            return self._error


def _was_sent(error: BaseException) -> bool:
    """Whether the database itself sent the error, such as a deadlock or SQLite's lock: then it answers others."""
    codes = (getattr(error.__cause__, name, None) for name in ("sqlstate", "pgcode", "sqlite_errorcode"))
    return any(codes) or database_is_full(error)


def has_session(request: HttpRequest) -> bool:
    """Whether the request's user is looked up in the database; without a session it is anonymous."""
    return settings.SESSION_COOKIE_NAME in request.COOKIES


@contextmanager
def noting() -> Iterator[None]:
    """Note whether what asks the database here waits for it in vain, so that the next requests do not."""
    began = time.monotonic()
    try:
        yield
    except Exception as error:
        if database_is_away(error):
            now = time.monotonic()
            frozen.failed(error, now - began, now)
        else:
            frozen.answered()
        raise
    frozen.answered()


@contextmanager
def asking() -> Iterator[None]:
    """The same around the first question of a request, which is refused while the database is known to be frozen."""
    if frozen.error(time.monotonic()):
        raise DatabaseUnavailable(outcome=NOT_STARTED, retry_after=DATABASE_PAUSE)
    with noting():
        yield


frozen = FrozenDatabase()
_trouble = _Trouble()
_lock = threading.Lock()


def away_page(error: BaseException) -> HttpResponse:
    """503 with Retry-After, for an error of the database."""
    full = database_is_full(error)
    try:
        broker = last_status.ask()
    except BrokerError:
        broker = None
    pools = broker.status.pools if broker else ()
    context = {
        "full": full,
        "style": _style(),
        "since": time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(_since(time.time()))),
        "broker": broker,
        # Counts only: without a database no user is known, so the page is public.
        "pools": len(pools),
        "serving": sum(pool.ready > 0 for pool in pools),
        "workers": sum(pool.ready for pool in pools),
        "waiting": sum(pool.waiting for pool in pools),
    }
    # Rendered without the request, because its context processors would query the user.
    page = HttpResponse(render_to_string("snakepit/database_away.html", context), status=503)
    page["Retry-After"] = str(round(DATABASE_PAUSE))
    page["Cache-Control"] = "no-store"
    return page


def _style() -> str:
    """The URL of the style sheet; empty where the project has not collected its static files."""
    try:
        return static("snakepit/snakepit.css")
    except (ValueError, ImproperlyConfigured):
        return ""


def server_error(request: HttpRequest) -> HttpResponse:
    """The site's `handler500`. Middleware that stores a session fails outside of every view."""
    error = sys.exc_info()[1]
    if error is not None and database_is_away(error):
        return away_page(error)
    return default_page(request)


def _since(now: float) -> float:
    """When this process first noticed the trouble."""
    with _lock:
        if now - _trouble.newest > QUIET:
            _trouble.since = now
        _trouble.newest = now
        return _trouble.since
