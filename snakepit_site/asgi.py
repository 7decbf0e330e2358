"""The ASGI entry point: Django behind turns of its callers and the body limit, with the short way for calls."""

from __future__ import annotations

import os
import warnings

from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "snakepit.site.settings")
django_application = get_asgi_application()

from django.urls import get_resolver  # noqa: E402

from snakepit.pools.adapters.processes.hiding import hide  # noqa: E402
from snakepit.pools.adapters.processes.loaded import freeze_loaded  # noqa: E402
from snakepit.pools.api.key_requests import KeyRequests  # noqa: E402
from snakepit.pools.api.limits import BodyLimit  # noqa: E402
from snakepit.pools.api.request_turns import RequestTurns  # noqa: E402 - needs the apps, which are loaded above

# WhiteNoise returns synchronous iterators. The files are small, so Django may read each as a whole.
warnings.filterwarnings("ignore", "StreamingHttpResponse must consume synchronous iterators")

hide()  # from adapters that run as the same user
application = RequestTurns(BodyLimit(KeyRequests(django_application)), prefix="/")
get_resolver().url_patterns  # noqa: B018 - loads the views of all apps, a third of all objects
freeze_loaded()
