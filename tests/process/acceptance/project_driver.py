"""Drives a whole project under the settings of DJANGO_SETTINGS_MODULE: prints what did not work, as a JSON list.

check, migrate ─▶ broker ─▶ call, stream, job ─▶ dashboard, admin and REST, each page and route
"""

from __future__ import annotations

import gzip
import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import django

PATIENCE = 120.0  # a bound for a machine under load, never a wait
# Below the place where the project mounts them.
DASHBOARD = ("", "pools/", "pools/primes/", "workers/", "nodes/", "events/", "jobs/", "audit/", "playground/",
             "diagnostics/", "pools/primes/recycle/", "pools/primes/scale/", "live/palette/", "live/series/?span=3600",
             "live/fragments/?topic=pools", "live/fragments/?topic=workers")  # fmt: skip
API = ("", "docs", "openapi.json", "live", "ready", "pools", "pools/primes", "pools/primes/commands",
       "pools/primes/plan", "workers", "events", "audit", "nodes", "status", "jobs", "diagnostics")  # fmt: skip
MACHINE_READ = r'(?:style|data-(?:every|since|at|seen|span|max|size)|value|max|min|width|height)="[^"]*\d,\d[^"]*"'
# Shown on the pages of others.
NO_PAGE = ("jobattempt", "jobentry", "poolperiod", "periodicrun", "jobworkflow", "jobedge", "jobstart")


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
    from snakepit.pools.jobs import messages, runner
    from snakepit.pools.models import Job

    client = shared.client()
    if (answer := client.call("primes", "count", below=100)) != 25:
        yield f"call: {answer!r}"
    if (chunks := list(client.stream("primes", "primes", limit=3))) != [2, 3, 5]:
        yield f"stream: {chunks!r}"
    messages.send = lambda *_: True  # type: ignore[assignment]  # this process is the Celery worker
    job = jobs.submit("primes", "count", {"below": 100})
    runner.run_one(str(job.pk))
    if (ended := Job.objects.get(pk=job.pk)).state != "succeeded":
        yield f"job: {ended.state} {ended.error}"


@dataclass
class Site:
    """The project as its users see it: a browser that is signed in, and a caller with an API key."""

    browser: Any
    caller: Any
    pages: str  # the URL of the dashboard
    api: str
    prefix: str  # FORCE_SCRIPT_NAME, which the web server takes away

    def get(self, client: Any, url: str, **headers: str) -> Any:
        """The answer; asked again while a broker that stopped for a moment does not answer the site in time."""
        end = time.monotonic() + PATIENCE
        while True:
            answer = client.get(url.removeprefix(self.prefix), headers={"accept-encoding": "gzip", **headers})
            if answer.status_code != 503 or time.monotonic() > end:
                return answer

    def post(self, client: Any, url: str, body: Any, **headers: str) -> Any:
        kind = {"content_type": "application/json"} if headers or client is self.caller else {}
        end = time.monotonic() + PATIENCE
        while True:
            answer = client.post(url.removeprefix(self.prefix), body, headers=headers, **kind)
            if answer.status_code != 503 or time.monotonic() > end:
                return answer


def make_site() -> Site:
    from django.conf import settings
    from django.contrib.auth import get_user_model
    from django.test import Client
    from django.urls import reverse, set_script_prefix

    from snakepit.pools.models import ApiKey
    from snakepit.pools.models.moments import utc_now

    prefix = (settings.FORCE_SCRIPT_NAME or "").rstrip("/")
    set_script_prefix(f"{prefix}/")
    user = get_user_model()._default_manager.create_superuser("root", password="x")  # type: ignore[attr-defined]
    _, secret = ApiKey.create(name="key", owner=user, scopes=("run", "view", "operate", "jobs", "configure"),
                              expires_at=utc_now() + timedelta(days=1))  # fmt: skip
    browser, caller = Client(enforce_csrf_checks=True), Client(headers={"authorization": f"Bearer {secret}"})
    browser.force_login(user)
    return Site(browser, caller, reverse("snakepit:overview"), reverse("snakepit-api:api-root"), prefix)


def pages(site: Site) -> Iterator[str]:
    from django.apps import apps
    from django.urls import reverse

    from snakepit.pools.models import Job

    job = Job.objects.latest("created_at").pk
    look = [f"{site.pages}{page}" for page in (*DASHBOARD, f"jobs/{job}/")]
    if apps.is_installed("django.contrib.admin"):
        look.append(reverse("admin:index"))
        for model in apps.get_app_config("snakepit_pools").get_models():
            name = f"admin:snakepit_pools_{model._meta.model_name}"
            if model._meta.model_name not in NO_PAGE:
                rows = model._default_manager.all()[:3]
                look += [reverse(f"{name}_changelist"), *(reverse(f"{name}_change", args=(row.pk,)) for row in rows)]
    yield from wrong(site, ((site.browser, path) for path in look))
    yield from wrong(site, ((site.caller, f"{site.api}{path}") for path in (*API, f"jobs/{job}")))
    posts = {
        "pools/primes/commands/count": {"below": 100},
        "pools/primes/scale": {"size": 2},
        "jobs": {"pool": "primes", "command": "count", "arguments": {"below": 10}},
        f"jobs/{job}/clone": {},
    }
    for path, body in posts.items():
        answer = site.post(site.caller, f"{site.api}{path}", json.dumps(body))
        if answer.status_code not in (200, 201):
            yield f"POST {path}: {answer.status_code} {answer.content[:300]!r}"


def orders(site: Site) -> Iterator[str]:
    """Orders of a browser with Django's CSRF check: a form, a script of a page, and the API with a session."""
    from django.apps import apps

    page = text(site.get(site.browser, f"{site.pages}playground/?pool=primes&command=count"))
    token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', page)
    header = re.search(r'data-csrf-header="([\w-]+)"', page)
    if not token or not header:
        yield "the playground has no CSRF token, or no name of its header"
        return
    form = {"csrfmiddlewaretoken": token[1], "size": "1", "reason": "test"}
    end, messages = time.monotonic() + PATIENCE, apps.is_installed("django.contrib.messages")
    while True:  # a broker that stopped for a moment follows later, and the message says so
        answer = site.post(site.browser, f"{site.pages}pools/primes/scale/", form)
        if answer.status_code != 302 or not answer["Location"].startswith(site.pages):
            yield f"scale on its page: {answer.status_code} {answer.headers.get('Location')}"
        elif messages and not says_so(site, answer["Location"]):
            if time.monotonic() < end:
                continue
            yield "scale on its page: no message says that it is done"
        break
    given = {header[1]: token[1]}
    call = json.dumps({"pool": "primes", "command": "count", "arguments": {"below": 10}})
    run = site.post(site.browser, f"{site.pages}playground/run/", call, **given)
    if run.status_code != 200:
        yield f"playground: {run.status_code} {run.content[:300]!r}"
    called = site.post(site.browser, f"{site.api}pools/primes/commands/count", '{"below": 100}', **given)
    if called.status_code != 200:
        yield f"the API with a session: {called.status_code} {called.content[:300]!r}"
    forged = site.post(site.browser, f"{site.api}pools/primes/commands/count", "{}", Accept="*/*")
    if forged.status_code != 403 or header[1].lower() not in forged.content.decode().lower():
        yield f"the API with a session and no token: {forged.status_code} {forged.content[:300]!r}"


def says_so(site: Site, url: str) -> bool:
    return 'class="notice good"' in text(site.get(site.browser, url))


def strangers(site: Site) -> Iterator[str]:
    """What a user who is not signed in gets: the login page of the project, and no answer that a cache kept."""
    from django.conf import settings
    from django.contrib.auth import get_user_model
    from django.shortcuts import resolve_url
    from django.test import Client

    stranger = Client()
    login = resolve_url(settings.LOGIN_URL)
    for page in ("", "pools/", "jobs/"):
        answer = site.get(stranger, f"{site.pages}{page}")
        if answer.status_code != 302 or not answer["Location"].startswith(f"{login}?next="):
            yield f"/{page} of a stranger: {answer.status_code} {answer.headers.get('Location')}"
    user = get_user_model()._default_manager.create_user("guest", password="x")  # type: ignore[attr-defined]
    guest = Client()
    guest.force_login(user)
    answer = site.get(guest, site.pages)
    if answer.status_code != 403 or "guest" not in text(answer):
        yield f"the overview for a user without rights: {answer.status_code}"
    for path in ("pools", "status", "jobs", "workers"):
        if (answer := site.get(stranger, f"{site.api}{path}")).status_code != 401:
            yield f"{path} of a stranger: {answer.status_code}"


def fresh(site: Site) -> Iterator[str]:
    """The same question gets the new state: no middleware answers from a cache."""
    for size in (2, 1):
        site.post(site.caller, f"{site.api}pools/primes/scale", json.dumps({"size": size}))
        shown = json.loads(text(site.get(site.caller, f"{site.api}pools/primes")))["size"]
        if shown != size:
            yield f"the API shows size {shown} instead of {size}"


def text(answer: Any) -> str:
    body = answer.getvalue()
    return (gzip.decompress(body) if answer.headers.get("Content-Encoding") == "gzip" else body).decode()


def wrong(site: Site, requests: Any) -> Iterator[str]:
    for client, path in requests:
        try:
            answer = site.get(client, path)
        except Exception as error:
            yield f"{path}: {type(error).__name__}: {error}"
            continue
        if answer.status_code != 200:
            yield f"{path}: {answer.status_code} {answer.headers.get('Location', '')} {answer.content[:300]!r}"
            continue
        page = text(answer)
        if "/docs" not in path and "private" not in answer.headers.get("Cache-Control", ""):
            yield f"{path}: Django's cache for the whole site may keep it: {answer.headers.get('Cache-Control')}"
        if client is site.browser and site.pages in path:
            yield from (f"{path}: {found[0]}" for found in re.finditer(r".{60}INVALID .{60}", page))
            # A number of the locale in a place that a browser or a script reads.
            yield from (f"{path}: {found[0]}" for found in re.finditer(MACHINE_READ, page))


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
        found += calls()
        site = make_site()
        for look in (pages, orders, strangers, fresh):
            found += look(site)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
