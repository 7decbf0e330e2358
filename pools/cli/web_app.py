"""The ASGI application that `snakepit up` serves: the project's own, and its static files.

Uvicorn serves no static files, and `startproject` sets up none. Where the project has no WhiteNoise, Django's own
handler finds the files in the apps, as `runserver` does. In production a web server or WhiteNoise serves them.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
from typing import Any

import django
from django.core.asgi import get_asgi_application
from django.urls import get_resolver

from snakepit.pools.adapters.processes.loaded import freeze_loaded


def project_application(site: str) -> Any:
    """`application` of the project's asgi module; without that module, Django's plain application."""
    module = f"{site}.asgi"
    if site and importlib.util.find_spec(module) is not None:
        return importlib.import_module(module).application
    return get_asgi_application()


def with_static_files(application: Any) -> Any:
    from django.apps import apps
    from django.conf import settings

    whitenoise = any("whitenoise" in name.lower() for name in settings.MIDDLEWARE)
    if whitenoise or not apps.is_installed("django.contrib.staticfiles"):
        return application
    from django.contrib.staticfiles.handlers import ASGIStaticFilesHandler

    return ASGIStaticFilesHandler(application)


django.setup()
application = with_static_files(project_application(os.environ["DJANGO_SETTINGS_MODULE"].rpartition(".")[0]))
get_resolver().url_patterns  # noqa: B018 - loads the project's views; `snakepit up` has examined them
freeze_loaded()
