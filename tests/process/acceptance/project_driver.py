"""Drives a whole project under the settings of DJANGO_SETTINGS_MODULE: prints what did not work, as a JSON list.

check, migrate ─▶ broker ─▶ call, stream, job ─▶ dashboard, admin and REST, each page and route
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import django

PATIENCE = 60.0  # a bound for a machine under load, never a wait
DASHBOARD = ("", "pools/", "pools/primes/", "workers/", "nodes/", "events/", "jobs/", "audit/", "playground/",
             "diagnostics/", "pools/primes/recycle/", "pools/primes/scale/", "live/palette/", "live/series/?span=3600",
             "live/fragments/?topic=pools")  # fmt: skip
API = ("", "docs", "openapi.json", "live", "ready", "pools", "pools/primes", "pools/primes/commands",
       "pools/primes/plan", "workers", "events", "audit", "nodes", "status", "jobs", "diagnostics")  # fmt: skip
NO_PAGE = ("jobattempt", "jobentry", "poolperiod")  # shown on the pages of others


def prepare() -> list[str]:
    """Run the checks, and migrate every database; returns the messages of the checks."""
    from django.conf import settings
    from django.core.checks import WARNING, run_checks
    from django.core.management import call_command

    if settings.AUTH_USER_MODEL == "people.Person":
        call_command("makemigrations", "people", verbosity=0)
    found = [f"check: {one}" for one in run_checks() if one.level >= WARNING]
    for alias in settings.DATABASES:
        call_command("migrate", database=alias, interactive=False, verbosity=0)
    call_command("makemigrations", "snakepit_pools", check=True, dry_run=True, verbosity=0)
    return found


@contextmanager
def broker() -> Iterator[None]:
    process = subprocess.Popen([sys.executable, "-m", "snakepit.pools.cli", "broker"], stdout=sys.stderr)
    try:
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(PATIENCE)


def calls() -> Iterator[str]:
    from snakepit.pools import jobs
    from snakepit.pools.client import shared
    from snakepit.pools.jobs import attempt, messages
    from snakepit.pools.models import Job

    client = shared.client()
    if (answer := client.call("primes", "count", below=100)) != 25:
        yield f"call: {answer!r}"
    if (chunks := list(client.stream("primes", "primes", limit=3))) != [2, 3, 5]:
        yield f"stream: {chunks!r}"
    messages.send = lambda *_: True  # type: ignore[assignment]  # this process is the Celery worker
    job = jobs.submit("primes", "count", {"below": 100})
    attempt.run(str(job.pk))
    if (ended := Job.objects.get(pk=job.pk)).state != "succeeded":
        yield f"job: {ended.state} {ended.error}"


def pages() -> Iterator[str]:
    from django.apps import apps
    from django.conf import settings
    from django.contrib.auth import get_user_model
    from django.test import Client
    from django.urls import reverse, set_script_prefix

    from snakepit.pools.models import ApiKey, Job
    from snakepit.pools.models.moments import utc_now

    prefix = (settings.FORCE_SCRIPT_NAME or "").rstrip("/")
    set_script_prefix(f"{prefix}/")
    user = get_user_model()._default_manager.create_superuser("root", password="x")  # type: ignore[attr-defined]
    _, secret = ApiKey.create(name="key", owner=user, scopes=("run", "view", "operate", "jobs", "configure"),
                              expires_at=utc_now() + timedelta(days=1))  # fmt: skip
    browser, caller = Client(), Client(headers={"authorization": f"Bearer {secret}"})
    browser.force_login(user)
    job = Job.objects.latest("created_at").pk
    look = [f"/{page}" for page in (*DASHBOARD, f"jobs/{job}/")]
    if apps.is_installed("django.contrib.admin"):
        for model in apps.get_app_config("snakepit_pools").get_models():
            name = f"admin:snakepit_pools_{model._meta.model_name}"
            if model._meta.model_name not in NO_PAGE:
                rows = model._default_manager.all()[:3]
                look += [reverse(f"{name}_changelist"), *(reverse(f"{name}_change", args=(row.pk,)) for row in rows)]
    yield from wrong((browser, path.removeprefix(prefix)) for path in look)
    yield from wrong((caller, f"/api/{path}") for path in (*API, f"jobs/{job}"))
    posts = {
        "/api/pools/primes/commands/count": {"below": 100},
        "/api/pools/primes/scale": {"size": 2},
        "/api/jobs": {"pool": "primes", "command": "count", "arguments": {"below": 10}},
        f"/api/jobs/{job}/clone": {},
    }
    for path, body in posts.items():
        answer = caller.post(path, json.dumps(body), content_type="application/json")
        if answer.status_code not in (200, 201):
            yield f"POST {path}: {answer.status_code} {answer.content[:300]!r}"


def wrong(requests: Any) -> Iterator[str]:
    for client, path in requests:
        try:
            answer = client.get(path, headers={"accept-encoding": "gzip"})
        except Exception as error:
            yield f"{path}: {type(error).__name__}: {error}"
            continue
        if answer.status_code != 200:
            yield f"{path}: {answer.status_code} {answer.headers.get('Location', '')} {answer.content[:300]!r}"


def ready() -> None:
    """Wait until the pool has a worker and the broker has written its row."""
    from snakepit.pools.broker.errors import BrokerError
    from snakepit.pools.client import shared
    from snakepit.pools.models import Node, Worker

    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        try:
            serves = any(one.ready for one in shared.client().status().pools)
            if serves and Node.objects.exists() and Worker.objects.filter(state="ready").exists():
                return
        except BrokerError:
            pass
        time.sleep(0.05)
    sys.exit("the broker is not ready")


def main() -> None:
    django.setup()
    found = prepare()
    with broker():
        ready()
        found += [*calls(), *pages()]
    print(json.dumps(found))


if __name__ == "__main__":
    main()
