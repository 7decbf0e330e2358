"""Web server and Celery worker take what they have loaded out of the garbage collector's sight."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAMS = {
    "the web server of `snakepit up`": "import snakepit.pools.cli.web_app",
    "the site's web server": "import snakepit.site.asgi",
    "a Celery worker": """
from types import SimpleNamespace
from celery import signals
from snakepit.site.celery import app
app.loader.import_default_modules()
worker = SimpleNamespace(app=app, pool_cls="threads", concurrency=2)
signals.celeryd_after_setup.send(sender="here", instance=worker, conf=app.conf)  # each receiver by itself
""",
}
LEFT = "import gc; print(gc.get_freeze_count(), len(gc.get_objects()))"


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_full_collection_scans_a_small_part_of_a_program(name: str, tmp_path: Path) -> None:
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("SNAKEPIT_", "DJANGO_"))}
    environment |= {"DJANGO_SETTINGS_MODULE": "snakepit.site.settings", "SNAKEPIT_STATE_DIR": str(tmp_path)}
    environment |= {"SNAKEPIT_RUNTIME_DIR": str(tmp_path / "run"), "SNAKEPIT_CELERY_URL": "memory://"}
    command = [sys.executable, "-c", f"{PROGRAMS[name]}\n{LEFT}"]
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True, cwd=tmp_path)
    frozen, seen = map(int, done.stdout.split()[-2:])
    assert frozen > 10 * seen, done.stdout + done.stderr
