"""Views that manage their own transactions and rights, also where the project's settings do so for all views."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from django.db import connections, transaction
from django.urls import URLPattern

View = TypeVar("View", bound=Callable[..., Any])


def non_atomic(view: View) -> View:
    """Exclude a view from the ATOMIC_REQUESTS of every database.

    Django refuses asynchronous views there. Others would notify the broker of a row that is not committed yet.
    """
    for alias in connections:
        view = transaction.non_atomic_requests(alias)(view)
    return view


def independent_patterns(patterns: list[Any]) -> list[Any]:
    """The same patterns, their views excluded from ATOMIC_REQUESTS and from Django's LoginRequiredMiddleware.

    The middleware would send a caller with an API key to the page of the login.
    """
    for pattern in patterns:
        if isinstance(pattern, URLPattern):
            view: Any = non_atomic(pattern.callback)
            view.login_required = False
            pattern.callback = view
    return patterns
