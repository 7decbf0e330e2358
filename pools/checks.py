"""System checks, tag `snakepit`. They open no socket, run no query and import no user code.

E001 invalid setting         W001 adapter not found
E002 invalid pool            W002 SQLite not configured for several writers
E003 socket path too long    W003 API page loads scripts from another host
E004 users in another        W004 setting without effect in this profile
     database than pools     W005 another package called snakepit
E005 gevent or eventlet has  W007 a server is set up to use gevent or eventlet
     patched this process    W008 pools in process, in a deployment
E009 a database without          W012 PostgreSQL without connect_timeout
     autocommit                  W013 SQLite in memory
E010 the dashboard without AuthenticationMiddleware
E006 URLs inside another namespace (E006 and E010 import ROOT_URLCONF, as Django's own checks of URLs do)
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from django.core.checks import CheckMessage, Error, Tags, Warning, register
from django.utils.module_loading import import_string

import snakepit
from snakepit.pools import adapter_source, conf, greenlets, permissions
from snakepit.pools.broker.spec import FIELDS, Profile

URL_NAMES = ("snakepit", "snakepit-api")
LONGEST_PATH = 107  # bytes of a Unix socket's path on Linux, without its closing NUL


def check_snakepit(app_configs: Any = None, **_: Any) -> list[CheckMessage]:
    if problems := find_setting_problems():
        return [Error(problem, id="snakepit.E001") for problem in problems]
    return [*_pools(), *_adapters(), *_names(), *_socket(), *_database(), *_routers(), *_docs(), *_greenlets()]


def find_setting_problems() -> list[str]:
    """What is wrong with the plain keys of the settings; with one of them, the broker does not start."""
    return list(conf.find_problems()) or list(_certificates())


def _certificates() -> Iterator[str]:
    for name, rights in conf.current().listen_certificates.items():
        for scope in rights["scopes"]:
            if scope not in permissions.SCOPES:
                known = ", ".join(permissions.SCOPES)
                where = f'SNAKEPIT["LISTEN_CERTIFICATES"]["{name}"]: scopes'
                yield f"{where}: {scope!r} is not a scope; the scopes are {known}"


def _pools() -> Iterator[CheckMessage]:
    problems = conf.find_pool_problems()
    yield from (Error(problem, id="snakepit.E002") for problem in problems)
    if problems:
        return
    for spec in conf.pool_specs():
        if spec.profile == Profile.PROCESS and spec.threads != FIELDS["threads"].default:
            yield Warning(
                f"The pool {spec.name} sets threads to {spec.threads}, which only the thread profile uses.",
                hint=f'Set SNAKEPIT["POOLS"]["{spec.name}"]["profile"] to "thread", or leave `threads` out.',
                id="snakepit.W004",
            )


def _adapters() -> Iterator[CheckMessage]:
    for key, path in conf.adapters().items():
        if why := adapter_source.find_problem(path, conf.worker_path()):
            yield Warning(
                f"The adapter {key!r} ({path}) cannot be imported: {why}.",
                hint='Correct SNAKEPIT["ADAPTERS"], or add the directory of the package to SNAKEPIT["WORKER_PATH"]. '
                "If only the workers' interpreter has the package, silence this check.",
                id="snakepit.W001",
            )


def _names() -> Iterator[CheckMessage]:
    """Python imports the first package called snakepit on its path, so a second one hides ours or is hidden."""
    ours = Path(snakepit.__file__).parent
    for entry in dict.fromkeys(sys.path):
        for found in (Path(entry or ".") / "snakepit", Path(entry or ".") / "snakepit.py"):
            if found.exists() and not (found.is_dir() and found.resolve() == ours.resolve()) and _importable(found):
                yield Warning(
                    f"{found} is called snakepit too. Python imports whichever comes first on its path.",
                    hint="Rename it, or uninstall that package.",
                    id="snakepit.W005",
                )


def _importable(path: Path) -> bool:
    return path.suffix == ".py" or any((path / name).exists() for name in ("__init__.py", "__init__.pyc"))


def _socket() -> Iterator[CheckMessage]:
    path = conf.broker_address()
    size = len(os.fsencode(path))
    if size > LONGEST_PATH:
        yield Error(
            f"The path of the broker's socket has {size} bytes; the limit is {LONGEST_PATH}: {path}",
            hint='Set SNAKEPIT["RUNTIME_DIR"] to a shorter directory.',
            id="snakepit.E003",
        )


def _database() -> Iterator[CheckMessage]:
    from django.conf import settings

    from snakepit.pools.models import schema

    if not settings.DATABASES.get(schema.alias(), {}).get("AUTOCOMMIT", True):
        yield Error(
            f"The database {schema.alias()!r} has AUTOCOMMIT off: what the broker and jobs write is not committed.",
            hint="Remove AUTOCOMMIT from this database. ATOMIC_REQUESTS gives views a transaction each.",
            id="snakepit.E009",
        )
    for alias, database in settings.DATABASES.items():
        engine, options = database.get("ENGINE", ""), database.get("OPTIONS", {})
        if engine.endswith(".postgresql") and not {"connect_timeout", "service", "pool"} & set(options):
            yield Warning(
                f"The PostgreSQL database {alias!r} has no connect_timeout: while the server is frozen or its host is "
                "gone, each request waits for minutes.",
                hint='Set OPTIONS = {"connect_timeout": 2}. A request then gets 503 `database_unavailable` in 2 s.',
                id="snakepit.W012",
            )
        if not engine.endswith(".sqlite3"):
            continue
        if database.get("NAME") == ":memory:":
            yield Warning(
                f"The SQLite database {alias!r} is in memory: web, broker and Celery would each have an empty one.",
                hint="Set NAME to a file. Tests need no change: Django makes a database of their own.",
                id="snakepit.W013",
            )
        immediate = str(options.get("transaction_mode", "")).upper() == "IMMEDIATE"
        wal = "journal_mode=wal" in str(options.get("init_command", "")).replace(" ", "").lower()
        if not (immediate and wal):
            yield Warning(
                f"The SQLite database {alias!r} is not configured for several writers: web, broker and Celery would "
                "fail with `database is locked`.",
                hint='Set OPTIONS = {"transaction_mode": "IMMEDIATE", "timeout": 20, "init_command": '
                '"PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;"}.',
                id="snakepit.W002",
            )


def _routers() -> Iterator[CheckMessage]:
    from snakepit.pools.models import schema

    if why := schema.find_split():
        yield Error(why, hint=schema.SPLIT_HINT, id="snakepit.E004")


def _docs() -> Iterator[CheckMessage]:
    from django.apps import apps

    if not apps.is_installed("ninja"):
        yield Warning(
            "The API page /docs loads its scripts from another host.",
            hint='Add "ninja" to INSTALLED_APPS, so that this site serves them.',
            id="snakepit.W003",
        )


def _greenlets() -> Iterator[CheckMessage]:
    if greenlets.is_patched():
        yield Error(greenlets.PATCHED, hint="Remove the monkey patch from this program.", id="snakepit.E005")
    for place, library in _named_greenlets():
        yield Warning(
            f"{place} names {library}: calls, the REST API and jobs do not work in a process that it patches.",
            hint="Use threads: gunicorn -k gthread, or celery -P threads.",
            id="snakepit.W007",
        )


def _named_greenlets() -> Iterator[tuple[str, str]]:
    """Each place that chooses gevent or eventlet for a server, and which. Files are read and not run."""
    from django.conf import settings

    texts = {name: str(getattr(settings, name, "")) for name in ("CELERY_WORKER_POOL", "CELERYD_POOL")}
    texts["The environment variable GUNICORN_CMD_ARGS"] = os.environ.get("GUNICORN_CMD_ARGS", "")
    with contextlib.suppress(OSError, UnicodeDecodeError):
        lines = Path("gunicorn.conf.py").read_text().splitlines()
        texts["gunicorn.conf.py"] = " ".join(line for line in lines if line.startswith("worker_class"))
    for place, text in texts.items():
        if found := re.search("|".join(greenlets.NAMES), text):
            yield place, found[0]


def check_deployment(app_configs: Any = None, **_: Any) -> list[CheckMessage]:
    """Checks of `check --deploy`."""
    if any(conf.find_problems()) or not conf.current().test:
        return []
    return [
        Warning(
            'SNAKEPIT["TEST"] is on: pools run in the web process, and no call reaches a broker.',
            hint='Remove SNAKEPIT["TEST"] from the settings of a deployment.',
            id="snakepit.W008",
        )
    ]


def check_urls(app_configs: Any = None, **_: Any) -> list[CheckMessage]:
    """Find our URLs inside another namespace, where no page could build a link to another one; pages without users."""
    from django.conf import settings
    from django.urls import get_resolver

    if not getattr(settings, "ROOT_URLCONF", None):
        return []
    found: list[CheckMessage] = []
    if URL_NAMES[0] in get_resolver().app_dict and not _has_users(settings.MIDDLEWARE):
        found.append(
            Error(
                "The dashboard is in ROOT_URLCONF, and MIDDLEWARE has no AuthenticationMiddleware: each page fails.",
                hint="Add 'django.contrib.sessions.middleware.SessionMiddleware' and "
                "'django.contrib.auth.middleware.AuthenticationMiddleware' to MIDDLEWARE.",
                id="snakepit.E010",
            )
        )
    return found + [
        Error(
            f"The URLs of the namespace {app_name!r} are inside the namespace {outer!r}: links between pages cannot be "
            "built there.",
            hint="Include them in ROOT_URLCONF, or in a URLconf without an app_name. A prefix is no problem.",
            id="snakepit.E006",
        )
        for app_name, outer in _nested(get_resolver(), "")
    ]


def _has_users(middleware: list[str]) -> bool:
    from django.contrib.auth.middleware import AuthenticationMiddleware

    for path in middleware:
        with contextlib.suppress(ImportError, TypeError):  # Django reports these; a function is no class
            if issubclass(import_string(path), AuthenticationMiddleware):
                return True
    return False


def _nested(resolver: Any, outer: str) -> Iterator[tuple[str, str]]:
    for one in resolver.url_patterns:
        if not hasattr(one, "url_patterns"):
            continue
        if outer and one.app_name in URL_NAMES:
            yield one.app_name, outer
        else:
            yield from _nested(one, one.namespace or outer)


def register_all() -> None:
    register(check_snakepit, "snakepit")
    register(check_deployment, "snakepit", deploy=True)
    register(check_urls, "snakepit", Tags.urls)
