"""The WSGI entry point. Everything works under WSGI, but each stream occupies a thread."""

from __future__ import annotations

import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "snakepit.site.settings")
django_application = get_wsgi_application()

from snakepit.pools.adapters.processes.hiding import hide  # noqa: E402
from snakepit.pools.api.limits import WsgiBodyLimit  # noqa: E402 - needs the apps, which the line above loads

hide()  # from adapters that run as the same user
application = WsgiBodyLimit(django_application)
