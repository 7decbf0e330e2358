"""Views that manage their own transactions, also where the project sets ATOMIC_REQUESTS."""

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


def non_atomic_patterns(patterns: list[Any]) -> list[Any]:
    """The same patterns, their views excluded from ATOMIC_REQUESTS."""
    for pattern in patterns:
        if isinstance(pattern, URLPattern):
            pattern.callback = non_atomic(pattern.callback)
    return patterns
