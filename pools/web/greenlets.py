"""The asynchronous views of a web server that gevent or eventlet has patched: one clear error.

Greenlets share one thread, and asyncio has one running event loop per thread. There Django takes every query for one of
an asynchronous context, and the traceback names neither gevent nor what to do.
"""

from __future__ import annotations

import functools
import inspect
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.urls import URLPattern
from django.views.decorators.csrf import csrf_exempt

from snakepit.pools import greenlets
from snakepit.pools.broker.errors import NOT_STARTED, BrokerUnreachable
from snakepit.pools.web.errors import error_response

# Probes keep their own answers, and the stream of a page keeps its 501, after which the page polls.
LEFT = ("live", "ready", "stream")


def refuse_asynchronous(patterns: list[Any]) -> list[Any]:
    """The same patterns; in a patched process, their asynchronous views answer 503 with the reason."""
    if greenlets.is_patched():
        for pattern in patterns:
            if not isinstance(pattern, URLPattern) or pattern.name in LEFT:
                continue
            if inspect.iscoroutinefunction(pattern.callback):
                pattern.callback = _refusing(pattern.callback)
    return patterns


def _refusing(view: Any) -> Any:
    @csrf_exempt
    @functools.wraps(view, updated=())
    def refused(request: HttpRequest, *_: Any, **__: Any) -> HttpResponse:
        return error_response(BrokerUnreachable(greenlets.PATCHED, outcome=NOT_STARTED))

    return refused
