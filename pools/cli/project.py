"""Which Django project a command belongs to, found without starting Django."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

from django.core.exceptions import ImproperlyConfigured

from snakepit.pools.cli.output import UsageError

DEFAULT_SETTINGS = "snakepit.site.settings"
# Seconds that a command waits for the message transport. A web request waits 1 s, but a command also loads Celery's
# transport in that time; a message that is given up goes some seconds later.
TRANSPORT_PATIENCE = 5.0
NAMED = re.compile(r"""["']DJANGO_SETTINGS_MODULE["']\s*,\s*["']([\w.]+)["']""")


def choose_settings(directory: Path | None = None) -> str:
    """Set DJANGO_SETTINGS_MODULE: the present value, else that of ./manage.py, else the bundled site."""
    here = directory or Path.cwd()
    try:
        found = NAMED.search((here / "manage.py").read_text())
    except OSError:
        found = None
    if found and str(here) not in sys.path:
        # A console script does not have the working directory on its path, where the settings module is.
        sys.path.insert(0, str(here))
    name = os.environ.get("DJANGO_SETTINGS_MODULE") or (found[1] if found else DEFAULT_SETTINGS)
    os.environ["DJANGO_SETTINGS_MODULE"] = name
    return name


def find_address() -> str:
    """The broker's address. Reads the settings module at most; django.setup() would cost a second."""
    from snakepit.pools.client.address import default_address

    if not os.environ.get("SNAKEPIT_ADDRESS"):
        choose_settings()
    try:
        return default_address()
    except (ImportError, ImproperlyConfigured) as error:
        raise wrong_settings(error) from error


def start_django() -> None:
    """django.setup(), for the commands that need models."""
    choose_settings()
    import django

    try:
        django.setup()
    except (ImportError, ImproperlyConfigured) as error:
        raise wrong_settings(error) from error


def start_jobs() -> None:
    """As `start_django`, for a command that sends messages of jobs."""
    start_django()
    from snakepit.pools.jobs import messages

    messages.sender.patience = TRANSPORT_PATIENCE


def wrong_settings(error: Exception) -> UsageError:
    name = os.environ.get("DJANGO_SETTINGS_MODULE", "")
    return UsageError(
        f"The settings {name} cannot be used: {error}. Run this where manage.py is, or set DJANGO_SETTINGS_MODULE, "
        "or SNAKEPIT_ADDRESS to the path of a broker's socket"
    )
