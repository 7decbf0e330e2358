"""What `snakepit up` finds in a project: parts, and for each missing one the line that adds it."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from celery import Celery
from django.urls import include, path

from snakepit.pools.cli.host_project import examine
from snakepit.pools.cli.output import Problem
from snakepit.pools.jobs.messages import app_argument

APP = "hosted_project.celery"


@pytest.fixture
def urls(settings: Any, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """An empty URLconf, as the project's own."""
    module = ModuleType("hosted_urls")
    module.urlpatterns = []  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "hosted_urls", module)
    settings.ROOT_URLCONF = "hosted_urls"
    return module


def test_missing_urls_and_static_files_are_named_with_their_lines(urls: ModuleType, settings: Any) -> None:
    settings.INSTALLED_APPS = [name for name in settings.INSTALLED_APPS if name != "django.contrib.staticfiles"]
    gaps = [str(gap) for gap in examine("hosted", celery=False, web=True).gaps]
    assert gaps == [
        "The dashboard is not in the URLs of hosted_urls. "
        'Add: path("snakepit/", include("snakepit.pools.dashboard.urls"))',
        'The API is not in the URLs of hosted_urls. Add: path("api/", include("snakepit.pools.urls"))',
        'Static files are not served, so pages have no styles. Add: "django.contrib.staticfiles" to INSTALLED_APPS',
    ]


def test_pages_are_where_the_project_has_them(urls: ModuleType) -> None:
    urls.urlpatterns = [  # type: ignore[attr-defined]
        path("ops/pools/", include("snakepit.pools.dashboard.urls")),
        path("v1/", include("snakepit.pools.urls")),
    ]
    found = examine("hosted", celery=False, web=True)
    assert found.gaps == ()
    assert found.pages == (("dashboard", "/ops/pools/"), ("API docs", "/v1/docs"))


def test_a_project_without_a_celery_app_gets_the_file_to_add() -> None:
    found = examine("json", celery=True, web=False)
    assert (found.celery, found.own_transport) == ("", None)
    (gap,) = found.gaps
    assert gap.lacks == "There is no Celery app json.celery, so jobs do not run"
    assert gap.add.startswith("the file json/celery.py:\n    import os\n")
    assert gap.add.rstrip().endswith("configure_celery(app)")


@pytest.mark.parametrize(
    ("of_settings", "named", "argument"),
    [
        ("snakepit.site.settings", "", "snakepit.site"),
        ("snakepit.site.settings", "json.tool", "json.tool"),
        ("json.settings", "", ""),  # there is no json.celery
        ("none_such.settings", "", ""),
        ("settings", "", ""),
    ],
)
def test_the_argument_of_celery_finds_the_app_or_is_empty(
    of_settings: str, named: str, argument: str, settings: Any
) -> None:
    settings.SNAKEPIT = {**settings.SNAKEPIT, "CELERY_APP": named}
    settings.SETTINGS_MODULE = of_settings  # last: each override of settings begins without a module
    assert app_argument() == argument


def test_an_app_without_our_entries_gets_the_line_and_its_transport_is_seen(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "hosted_project").mkdir()
    (tmp_path / "hosted_project/__init__.py").touch()
    (tmp_path / "hosted_project/celery.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    app = Celery("hosted", set_as_current=False, broker="redis://cache/1")
    monkeypatch.setattr("snakepit.pools.jobs.messages.celery_app", lambda: app)
    found = examine("hosted_project", celery=True, web=False)
    assert found.celery == APP
    assert found.own_transport is not None
    assert (found.own_transport.url, found.own_transport.module) == ("redis://cache/1", APP)
    (gap,) = found.gaps
    assert gap.lacks.endswith("lacks beat entries: snakepit.sweep, snakepit.reconcile, snakepit.rollup, snakepit.prune")
    assert "configure_celery(app)" in gap.add


def test_an_app_that_cannot_be_loaded_is_one_clear_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise RuntimeError("no such\nkey")

    monkeypatch.setattr("snakepit.pools.jobs.messages.celery_app", broken)
    with pytest.raises(Problem, match=r"snakepit\.site\.celery cannot be loaded: RuntimeError: no such.*--no-celery"):
        examine("snakepit.site", celery=True, web=False)
