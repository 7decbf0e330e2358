"""System checks, tag `snakepit`. They open no socket, run no query and import no user code.

E001 invalid setting         W001 package of an adapter not found
E002 invalid pool            W002 SQLite not configured for several writers
E003 socket path too long    W003 API page loads scripts from another host
E004 users in another        W004 setting without effect in this profile
     database than pools
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from importlib.machinery import PathFinder
from typing import Any

from django.core.checks import CheckMessage, Error, Warning, register

from snakepit.pools import conf
from snakepit.pools.broker.spec import FIELDS, Profile

LONGEST_PATH = 107  # bytes of a Unix socket's path on Linux, without its closing NUL


def check_snakepit(app_configs: Any = None, **_: Any) -> list[CheckMessage]:
    problems = [Error(problem, id="snakepit.E001") for problem in conf.find_problems()]
    if problems:
        return [*problems]
    return [*_pools(), *_adapters(), *_socket(), *_database(), *_routers(), *_docs()]


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
        package = path.partition(".")[0]
        if not _findable(package):
            yield Warning(
                f"The package {package!r} of the adapter {key!r} ({path}) is not found.",
                hint='Correct SNAKEPIT["ADAPTERS"], or add the directory of the package to SNAKEPIT["WORKER_PATH"]. '
                "If only the workers' interpreter has the package, silence this check.",
                id="snakepit.W001",
            )


def _findable(package: str) -> bool:
    """Search without importing, because `manage.py check` must not run user code."""
    try:
        if PathFinder.find_spec(package, conf.worker_path()) is not None:  # directories and zip archives
            return True
        return importlib.util.find_spec(package) is not None
    except (ImportError, ValueError):
        return False


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

    for alias, database in settings.DATABASES.items():
        if not database.get("ENGINE", "").endswith(".sqlite3"):
            continue
        options = database.get("OPTIONS", {})
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


def register_all() -> None:
    register(check_snakepit, "snakepit")
