"""Reads the facts of the security checks: settings, files, processes, rows. It changes nothing."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from snakepit.pools import conf
from snakepit.pools.adapters.processes.hiding import SECRET_NAME, secret_names
from snakepit.pools.broker.status import BrokerStatus
from snakepit.pools.diagnostics import machine
from snakepit.pools.diagnostics.facts import FileFacts, Unknown
from snakepit.pools.diagnostics.security_facts import (
    BrokerProcessFacts,
    DeployFacts,
    EnvironmentFacts,
    ProcessFacts,
    ReachFacts,
    ServiceFacts,
)
from snakepit.pools.jobs import messages

POLICIES = ("snakepit.pools.middleware.ContentSecurityPolicy", "django.middleware.csp.ContentSecurityPolicyMiddleware")
PROXIES = "snakepit.pools.middleware.TrustedProxies"
# Some of the variables that select code: a pattern of WORKER_ENV_ALLOWED must match none of them.
DECIDING = (
    "LD_PRELOAD", "LD_AUDIT", "LD_LIBRARY_PATH", "GLIBC_TUNABLES", "GCONV_PATH", "OPENSSL_CONF", "OPENSSL_MODULES",
    "PATH", "HOME", "PYTHONHOME", "PYTHONSTARTUP", "PYTHONUSERBASE", "PYTHONBREAKPOINT", "NODE_OPTIONS", "BASH_ENV",
    "OMP_TOOL_LIBRARIES", "CUDA_INJECTION64_PATH", "JAVA_TOOL_OPTIONS", "PERL5OPT", "RUBYOPT", "XDG_CONFIG_HOME",
    "MPLBACKEND", "DJANGO_SETTINGS_MODULE", "GIT_SSH_COMMAND",
)  # fmt: skip
UNSAFE = ("pickle", "yaml", "application/x-python-serialize", "application/x-yaml")
LOCAL = ("", "localhost", "127.0.0.1", "::1")


def deploy() -> DeployFacts:
    from django.conf import settings
    from django.core.checks import Tags, run_checks

    found = run_checks(tags=[Tags.security], include_deployment_checks=True)
    silenced = set(settings.SILENCED_SYSTEM_CHECKS)
    return DeployFacts(
        warnings=tuple((str(one.id), str(one.msg), str(one.hint or "")) for one in found if one.id not in silenced),
        redirects_to_tls=bool(settings.SECURE_SSL_REDIRECT),
        trusts_tls_header=settings.SECURE_PROXY_SSL_HEADER is not None,
        reads_proxies=PROXIES in settings.MIDDLEWARE,
        proxies=conf.current().trusted_proxies,
        has_policy=any(one in settings.MIDDLEWARE for one in POLICIES),
    )


def runtime() -> tuple[FileFacts, ...]:
    known = machine.runtime(conf.runtime_dir())
    return known.directory, known.socket, known.token


def process(name: str, pid: int) -> ProcessFacts | None:
    """None: it has ended, or runs on another machine."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return None
    fields = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    return ProcessFacts(
        name=name,
        pid=pid,
        uid=int(fields["Uid"].split()[1]),
        no_new_privs=fields.get("NoNewPrivs") == "1",
        capabilities=int(fields["CapEff"], 16),
    )


def broker_process(status: BrokerStatus) -> BrokerProcessFacts | Unknown:
    own = process("broker", status.node.pid)
    if own is None:
        return Unknown(f"process {status.node.pid} of the broker is not on this machine, or this is not Linux")
    # The kernel gives the files of a process that is not dumpable to root.
    closed = None if own.uid == 0 else os.stat(f"/proc/{own.pid}/environ").st_uid == 0
    return BrokerProcessFacts(process=own, closed=closed, secrets=_shown_secrets(own.pid))


def _shown_secrets(pid: int) -> tuple[str, ...] | Unknown:
    try:
        text = Path(f"/proc/{pid}/environ").read_bytes().decode("utf-8", "surrogateescape")
    except OSError as error:
        return Unknown(f"{error.strerror}")
    pairs = dict(one.split("=", 1) for one in text.split("\0") if "=" in one)
    return tuple(secret_names({name: value for name, value in pairs.items() if value}))


def workers(status: BrokerStatus) -> tuple[ProcessFacts, ...]:
    network = _network(status.node.pid)
    found = []
    for worker in status.workers:
        if worker.pid and (one := process(worker.id, worker.pid)):
            own = _network(worker.pid)
            found.append(
                replace(one, sandbox=worker.sandbox, shares_network=own == network if own and network else None)
            )
    return tuple(found)


def _network(pid: int) -> str:
    """The network namespace of a process; empty: it cannot be read."""
    try:
        return os.readlink(f"/proc/{pid}/ns/net")
    except OSError:
        return ""


def reach(running: Iterable[ProcessFacts]) -> tuple[ReachFacts, ...]:
    """What the users of these workers can read, by the modes of files and of the directories above them.

    A user whose workers all have a limit of paths reads none of them.
    """
    running = list(running)
    users = {one.uid: _groups(one.pid) for one in running}
    open_ = {one.uid for one in running if not one.files_closed}
    return tuple(
        ReachFacts(uid=uid, what=what, path=str(path), readable=uid in open_ and can_read(path, uid, groups))
        for uid, groups in users.items()
        for what, path in secret_files()
        if path.exists()
    )


def secret_files() -> Iterator[tuple[str, Path]]:
    """The files that only the site should read."""
    from django.conf import settings

    yield "token", conf.runtime_dir() / "token"
    for one in settings.DATABASES.values():
        name = str(one.get("NAME", ""))
        if one.get("ENGINE", "").endswith("sqlite3") and name not in ("", ":memory:") and not name.startswith("file:"):
            yield "database file", Path(name)
    if state := getattr(settings, "STATE_DIR", None):
        yield "secret key", Path(state) / "secret_key"
    yield "environment file", conf.base_dir() / ".env"


def can_read(path: Path, uid: int, groups: set[int]) -> bool:
    """Whether a user can open a file: each directory above it can be passed, and its mode allows it."""
    if uid == 0:
        return True
    try:
        return all(_allows(one, uid, groups, stat.S_IXOTH) for one in path.absolute().parents) and _allows(
            path, uid, groups, stat.S_IROTH
        )
    except OSError:
        return False


def _allows(path: Path, uid: int, groups: set[int], bit: int) -> bool:
    found = os.stat(path)
    if found.st_uid == uid:
        return bool(found.st_mode & bit << 6)
    return bool(found.st_mode & (bit << 3 if found.st_gid in groups else bit))


def _groups(pid: int) -> set[int]:
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return set()
    fields = dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)
    return {int(one) for one in (*fields.get("Gid", "").split(), *fields.get("Groups", "").split())}


def environment() -> EnvironmentFacts:
    known = conf.current()
    return EnvironmentFacts(
        worker_user=known.worker_user,
        passed=tuple(name for name in known.worker_env if SECRET_NAME.search(name)),
        allowed=tuple(one for one in known.worker_env_allowed if any(fnmatchcase(name, one) for name in DECIDING)),
    )


def services() -> ServiceFacts:
    from django.conf import settings

    database = settings.DATABASES["default"]
    is_file = database["ENGINE"].endswith("sqlite3")
    host = str(database.get("HOST") or "")
    encrypted = database.get("OPTIONS", {}).get("sslmode") in ("require", "verify-ca", "verify-full")
    app: Any = messages.celery_app() if messages.is_known(messages.celery_app()) else None
    url = urlsplit(str(app.conf.broker_write_url or app.conf.broker_url or "")) if app else urlsplit("")
    with_password = url.scheme in ("redis", "rediss", "amqp", "amqps", "sentinel")
    accepted = {*app.conf.accept_content, *(app.conf.result_accept_content or ())} if app else set()
    return ServiceFacts(
        database=f"SQLite {database['NAME']}"
        if is_file
        else f"{database['ENGINE'].rpartition('.')[2]} at {host or 'a Unix socket'}",
        database_password=None if is_file else bool(database.get("PASSWORD")) or host.startswith("/") or not host,
        database_encrypted=is_file or encrypted or host.startswith("/") or host in LOCAL,
        messages=f"{url.scheme}://{url.hostname or ''}{url.path}" if app else "no Celery app",
        messages_password=bool(url.password) if with_password else None,
        unsafe_content=tuple(sorted(str(one) for one in accepted if one in UNSAFE)),
    )
