"""The ASGI entry: Django behind the API's body limit."""

from __future__ import annotations

import os

from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "snakepit_site.settings")
django_application = get_asgi_application()

from pools.api.limits import BodyLimit  # noqa: E402 - it needs the apps, which the line above loads

application = BodyLimit(django_application, "/api/")
