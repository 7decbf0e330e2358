"""What a Django project has for `snakepit up`: a Celery app, an ASGI application, static files and URLs.

Each missing part is a `Gap` with the line that adds it. `snakepit up` prints the gaps and runs what is there.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import Any

from django.core.exceptions import ImproperlyConfigured

from snakepit.pools.broker.text import one_line
from snakepit.pools.cli.output import Problem
from snakepit.pools.cli.transport import Own

CELERY_FILE = """
    import os
    from celery import Celery
    from snakepit import configure_celery

    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "{settings}")
    app = Celery("{site}")
    app.config_from_object("django.conf:settings", namespace="CELERY")
    app.autodiscover_tasks()
    configure_celery(app)
"""
PAGES = (
    ("dashboard", "snakepit:overview", 'path("snakepit/", include("snakepit.pools.dashboard.urls"))'),
    ("API docs", "snakepit-api:openapi-view", 'path("api/", include("snakepit.pools.urls"))'),
    ("admin", "admin:index", 'path("admin/", admin.site.urls)'),
)


@dataclass(frozen=True, slots=True)
class Gap:
    """A part that the project lacks, and the line that adds it."""

    lacks: str
    add: str

    def __str__(self) -> str:
        return f"{self.lacks}. Add: {self.add}"


@dataclass(frozen=True, slots=True)
class HostProject:
    """The parts that were found."""

    celery: str  # module of the Celery app; empty: none
    own_transport: Own | None  # of the Celery app; None: it names none
    pages: tuple[tuple[str, str], ...]  # label and path
    gaps: tuple[Gap, ...]


def examine(site: str, *, celery: bool, web: bool) -> HostProject:
    """Look at the project of the present settings. Imports its Celery app and its URLs, as its processes will."""
    module, own, gaps = _celery(site) if celery else ("", None, [])
    pages: list[tuple[str, str]] = []
    if web:
        pages, missing = _pages()
        gaps += missing + _static()
    return HostProject(module, own, tuple(pages), tuple(gaps))


def _celery(site: str) -> tuple[str, Own | None, list[Gap]]:
    from django.conf import settings

    from snakepit.pools import conf
    from snakepit.pools.celery_setup import LINES, find_missing_entries
    from snakepit.pools.jobs.messages import celery_app

    module = conf.current().celery_app or (f"{site}.celery" if site else "celery_app")
    if not _exists(module):
        lines = CELERY_FILE.format(settings=settings.SETTINGS_MODULE, site=site or "project")
        place = "/".join(module.split(".")) + ".py"
        return "", None, [Gap(f"There is no Celery app {module}, so jobs do not run", f"the file {place}:{lines}")]
    try:
        app = celery_app()
        missing = list(find_missing_entries(app.conf.beat_schedule or {}))
    except Exception as error:  # the project's own code
        raise Problem(
            f"The Celery app {module} cannot be loaded: {type(error).__name__}: {one_line(error)}; or use --no-celery"
        ) from error
    gaps = [Gap(f"The Celery app {module} lacks beat entries: {', '.join(missing)}", LINES)] if missing else []
    return module, _own_transport(app, module), gaps


def _own_transport(app: Any, module: str) -> Own | None:
    """The transport that the project's app names. The bundled site names a default only, which `up` may replace."""
    url = str(app.conf.broker_write_url or "")
    return Own(url, module) if url and module != "snakepit.site.celery" else None


def _exists(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def _pages() -> tuple[list[tuple[str, str]], list[Gap]]:
    from django.apps import apps
    from django.conf import settings
    from django.urls import NoReverseMatch, reverse

    found, gaps = [], []
    for label, view, line in PAGES:
        if label == "admin" and not apps.is_installed("django.contrib.admin"):
            continue
        try:
            found.append((label, reverse(view)))
        except (ImportError, ImproperlyConfigured) as error:
            raise Problem(f"The URLs {settings.ROOT_URLCONF} cannot be loaded: {one_line(error)}") from error
        except NoReverseMatch:
            if label != "admin":
                gaps.append(
                    Gap(f"The {label.removesuffix(' docs')} is not in the URLs of {settings.ROOT_URLCONF}", line)
                )
    return found, gaps


def _static() -> list[Gap]:
    from django.apps import apps

    if apps.is_installed("django.contrib.staticfiles"):
        return []
    lacks = "Static files are not served, so pages have no styles"
    return [Gap(lacks, '"django.contrib.staticfiles" to INSTALLED_APPS')]
