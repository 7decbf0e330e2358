"""Headers that depend on the project's settings, or that every answer has."""

from __future__ import annotations

from django.conf import settings

# Django's cache for a whole site stores what is only `no-store`, and its key does not contain the Authorization header.
UNCACHED = "private, no-store"


def csrf_header() -> str:
    """The header that carries a CSRF token in this project.

    >>> csrf_header()
    'X-CSRFToken'
    """
    name = str(settings.CSRF_HEADER_NAME)
    return "X-CSRFToken" if name == "HTTP_X_CSRFTOKEN" else name.removeprefix("HTTP_").replace("_", "-").title()
